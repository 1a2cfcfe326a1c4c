// A child process without the rights of root, for what only permissions and limits refuse.
#pragma once
#include <sys/wait.h>
#include <unistd.h>

namespace imkd::fakes {

// Whether body(), run there, returns true.
template <class Body>
bool as_nobody(Body&& body) {
  constexpr unsigned kNobody = 65534;
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && (setgid(kNobody) != 0 || setuid(kNobody) != 0)) _exit(2);
    _exit(body() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status == 0;
}

}  // namespace imkd::fakes
