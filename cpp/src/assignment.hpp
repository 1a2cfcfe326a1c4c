// The assignment of rows to columns of least total cost, in memory that is allocated once.
#pragma once
#include <cstddef>
#include <vector>

namespace imkd {

class Assignment {
 public:
  explicit Assignment(std::size_t size);  // rows and columns are at most this many
  // cost: (rows, columns) row-major, finite; min(rows, columns) pairs of least sum. The result holds the column of each
  // row, -1 for none, and is valid until the next call. Hungarian method with potentials (Kuhn 1955; shortest
  // augmenting paths as in Jonker and Volgenant 1987); of equal columns the first.
  const std::vector<int>& solve(const std::vector<double>& cost, int rows, int columns);

 private:
  int augment(int row, int columns);

  const double* cost_ = nullptr;
  std::size_t row_stride_ = 0, column_stride_ = 0;
  std::vector<double> row_potential_, column_potential_, distance_;
  std::vector<int> row_of_, previous_, column_of_row_;
  std::vector<char> done_;
};

}  // namespace imkd
