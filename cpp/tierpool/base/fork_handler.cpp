#include "tierpool/base/fork_handler.hpp"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace tierpool {
namespace {

struct Registry {
  std::mutex mutex;
  std::vector<const ForkHandler*> handlers;  // by rank
};

// Leaked on purpose: a fork may come after static destruction.
Registry& registry() {
  static auto* instance = new Registry;
  return *instance;
}

void before_fork() {
  registry().mutex.lock();
  for (const ForkHandler* handler : registry().handlers) {
    handler->before();
  }
}

void after_fork() {
  const auto& handlers = registry().handlers;
  std::for_each(handlers.rbegin(), handlers.rend(), [](const ForkHandler* handler) { handler->after(); });
  registry().mutex.unlock();
}

}  // namespace

ForkHandler::ForkHandler(Rank rank, std::function<void()> before, std::function<void()> after)
    : rank_(rank), before_(std::move(before)), after_(std::move(after)) {
  static const int installed = pthread_atfork(before_fork, after_fork, after_fork);
  static_cast<void>(installed);  // fails only without memory for a few pointers; forks are then unguarded, as before
  const std::lock_guard<std::mutex> lock(registry().mutex);
  auto& handlers = registry().handlers;
  handlers.insert(std::upper_bound(handlers.begin(), handlers.end(), rank_,
                                   [](Rank value, const ForkHandler* other) { return value < other->rank(); }),
                  this);
}

ForkHandler::~ForkHandler() {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  std::erase(registry().handlers, this);
}

}  // namespace tierpool
