#include "assignment.hpp"

#include <algorithm>
#include <limits>

namespace imkd {

Assignment::Assignment(std::size_t size)
    : row_potential_(size),
      column_potential_(size),
      distance_(size),
      row_of_(size),
      previous_(size),
      column_of_row_(size),
      done_(size) {}

// Grows the tree of alternating paths from a row until it reaches a free column, and returns that column. previous_[j]:
// the column before j on the path, -1 for the row itself.
int Assignment::augment(int start, int columns) {
  std::fill_n(distance_.begin(), columns, std::numeric_limits<double>::infinity());
  std::fill_n(done_.begin(), columns, char{0});
  int row = start, from = -1;
  double length = 0;  // of the path to `row`, in reduced costs
  while (true) {
    int nearest = -1;
    for (int j = 0; j < columns; ++j) {
      const auto k = static_cast<std::size_t>(j);
      if (done_[k]) continue;
      const double cost = cost_[static_cast<std::size_t>(row) * row_stride_ + k * column_stride_];
      const double through = length + cost - row_potential_[static_cast<std::size_t>(row)] - column_potential_[k];
      if (through < distance_[k]) {
        distance_[k] = through;
        previous_[k] = from;
      }
      if (nearest < 0 || distance_[k] < distance_[static_cast<std::size_t>(nearest)]) nearest = j;
    }
    const auto k = static_cast<std::size_t>(nearest);
    done_[k] = 1;
    length = distance_[k];
    if (row_of_[k] < 0) return nearest;
    row = row_of_[k];
    from = nearest;
  }
}

const std::vector<int>& Assignment::solve(const std::vector<double>& cost, int rows, int columns) {
  const bool transposed = rows > columns;
  cost_ = cost.data();
  row_stride_ = transposed ? 1 : static_cast<std::size_t>(columns);
  column_stride_ = transposed ? static_cast<std::size_t>(columns) : 1;
  std::fill_n(column_of_row_.begin(), rows, -1);
  if (transposed) std::swap(rows, columns);
  std::fill_n(row_potential_.begin(), rows, 0.0);
  std::fill_n(column_potential_.begin(), columns, 0.0);
  std::fill_n(row_of_.begin(), columns, -1);

  for (int row = 0; row < rows; ++row) {
    const int end = augment(row, columns);
    // Reduced costs of the tree's edges become 0.
    const double length = distance_[static_cast<std::size_t>(end)];
    row_potential_[static_cast<std::size_t>(row)] += length;
    for (std::size_t k = 0; k < static_cast<std::size_t>(columns); ++k) {
      if (!done_[k] || row_of_[k] < 0) continue;
      const double slack = length - distance_[k];
      row_potential_[static_cast<std::size_t>(row_of_[k])] += slack;
      column_potential_[k] -= slack;
    }
    // Shifts the pairs along the path.
    for (int j = end; j >= 0;) {
      const int before = previous_[static_cast<std::size_t>(j)];
      row_of_[static_cast<std::size_t>(j)] = before < 0 ? row : row_of_[static_cast<std::size_t>(before)];
      j = before;
    }
  }
  for (int j = 0; j < columns; ++j) {
    const int row = row_of_[static_cast<std::size_t>(j)];
    if (row < 0) continue;
    if (transposed)
      column_of_row_[static_cast<std::size_t>(j)] = row;
    else
      column_of_row_[static_cast<std::size_t>(row)] = j;
  }
  return column_of_row_;
}

}  // namespace imkd
