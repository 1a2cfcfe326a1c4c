// The assignment of rows to columns of least total cost, in memory that is allocated once.
#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace imkd {

class Assignment {
 public:
  explicit Assignment(std::size_t size)  // rows and columns are at most this many
      : row_potential_(size),
        column_potential_(size),
        distance_(size),
        row_of_(size),
        previous_(size),
        column_of_row_(size),
        done_(size) {}

  // cost(row, column): finite, by index; called often, which costs less than a matrix of rows x columns.
  // min(rows, columns) pairs of least sum. The result holds the column of each row, -1 for none, and is valid until the
  // next call. Hungarian method with potentials (Kuhn 1955; shortest augmenting paths as in Jonker and Volgenant 1987);
  // of equal columns the first.
  template <class Cost>
  const std::vector<int>& solve(const Cost& cost, std::size_t rows, std::size_t columns) {
    std::fill_n(column_of_row_.begin(), rows, -1);
    if (rows <= columns) {
      pair(cost, rows, columns);
      for (std::size_t j = 0; j < columns; ++j)
        if (row_of_[j] >= 0) column_of_row_[static_cast<std::size_t>(row_of_[j])] = static_cast<int>(j);
    } else {
      pair([&](std::size_t column, std::size_t row) { return cost(row, column); }, columns, rows);
      std::copy_n(row_of_.begin(), rows, column_of_row_.begin());
    }
    return column_of_row_;
  }

 private:
  // Of at most as many rows as columns; sets row_of_, -1 for none.
  template <class Cost>
  void pair(const Cost& cost, std::size_t rows, std::size_t columns) {
    std::fill_n(row_potential_.begin(), rows, 0.0);
    std::fill_n(column_potential_.begin(), columns, 0.0);
    std::fill_n(row_of_.begin(), columns, -1);
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t end = augment(cost, row, columns);
      // Reduced costs of the tree's edges become 0.
      const double length = distance_[end];
      row_potential_[row] += length;
      for (std::size_t k = 0; k < columns; ++k) {
        if (!done_[k] || row_of_[k] < 0) continue;
        const double slack = length - distance_[k];
        row_potential_[static_cast<std::size_t>(row_of_[k])] += slack;
        column_potential_[k] -= slack;
      }
      // Shifts the pairs along the path.
      for (int j = static_cast<int>(end); j >= 0;) {
        const int before = previous_[static_cast<std::size_t>(j)];
        row_of_[static_cast<std::size_t>(j)] =
            before < 0 ? static_cast<int>(row) : row_of_[static_cast<std::size_t>(before)];
        j = before;
      }
    }
  }

  // Grows the tree of alternating paths from a row until it reaches a free column, and returns that column.
  // previous_[j]: the column before j on the path, -1 for the row itself.
  template <class Cost>
  std::size_t augment(const Cost& cost, std::size_t row, std::size_t columns) {
    std::fill_n(distance_.begin(), columns, std::numeric_limits<double>::infinity());
    std::fill_n(done_.begin(), columns, char{0});
    int from = -1;
    double length = 0;  // of the path to `row`, in reduced costs
    while (true) {
      std::size_t nearest = columns;
      for (std::size_t k = 0; k < columns; ++k) {
        if (done_[k]) continue;
        const double through = length + cost(row, k) - row_potential_[row] - column_potential_[k];
        if (through < distance_[k]) {
          distance_[k] = through;
          previous_[k] = from;
        }
        if (nearest == columns || distance_[k] < distance_[nearest]) nearest = k;
      }
      done_[nearest] = 1;
      length = distance_[nearest];
      if (row_of_[nearest] < 0) return nearest;
      row = static_cast<std::size_t>(row_of_[nearest]);
      from = static_cast<int>(nearest);
    }
  }

  std::vector<double> row_potential_, column_potential_, distance_;
  std::vector<int> row_of_, previous_, column_of_row_;
  std::vector<char> done_;
};

}  // namespace imkd
