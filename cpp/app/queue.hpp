#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace raudo::app {

/// A first-in, first-out queue between threads. What bounds it is the number of slots in use.
template <typename T>
class Queue {
public:
    /// Adds a value.
    void push(T value) {
        {
            const std::lock_guard lock(mutex_);
            values_.push_back(std::move(value));
        }
        ready_.notify_one();
    }

    /// Waits for a value; none once the queue is closed and empty.
    std::optional<T> pop() {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [this] { return closed_ || !values_.empty(); });
        if (values_.empty()) {
            return std::nullopt;
        }
        T value = std::move(values_.front());
        values_.pop_front();
        return value;
    }

    /// Lets waiters go once what is there is taken.
    void close() {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
        }
        ready_.notify_all();
    }

    /// Forgets what is there, and lets waiters go.
    void cancel() {
        {
            const std::lock_guard lock(mutex_);
            values_.clear();
        }
        close();
    }

private:
    std::mutex mutex_;
    std::condition_variable ready_;
    std::deque<T> values_;
    bool closed_ = false;
};

}  // namespace raudo::app
