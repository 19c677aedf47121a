// The inside of the emulated driver: contexts, streams, events and graphs. Calls of the driver's API
// are in the files beside it.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "emulator.h"

namespace emulator {

// Work of a stream.
struct Entry {
  std::string what;
  Work work;
  bool counts;
};

// What was captured, in order.
struct Graph {
  std::vector<Entry> entries;
};

// Does nothing before somebody waits for it: on a GPU nothing is promised before that either, and
// so a wait that is missing shows.
struct Stream {
  std::deque<Entry> queue;
  // While the stream is captured.
  std::shared_ptr<Graph> capture;
  unsigned capture_mode = 0;
  std::thread::id capture_thread;
  // The capture came to nothing.
  bool capture_broken = false;
};

struct Event {
  bool timing = true;
  uint64_t recorded = 0;
  uint64_t done = 0;
  std::chrono::steady_clock::time_point when;
  Stream *stream = nullptr;
  // The graph that it was last recorded into, if that was in a capture.
  std::shared_ptr<Graph> captured_in;
};

struct Driver {
  bool initialised = false;
  int context_count = 0;
  Status lost = SUCCESS;
  long long executions = 0;
  Stream default_stream;
  std::map<void *, std::unique_ptr<Stream>> streams;
  std::map<void *, std::shared_ptr<Event>> events;
  std::map<void *, std::shared_ptr<Graph>> graphs;
  std::map<void *, std::shared_ptr<Graph>> executable_graphs;
};

Driver &driver();

// What a call needs before it may do anything.
enum class Needs { Nothing, Driver, Context };

// Holds the lock for a call. `status` is an error if the call may not go on.
class Call {
 public:
  explicit Call(Needs needs);
  Status status;

 private:
  std::lock_guard<std::recursive_mutex> guard;
};

// A null pointer if there is none.
Stream *find_stream(void *handle);
std::shared_ptr<Event> find_event(void *handle);

// Runs the first entry of a stream, or all of them.
Status run_one(Stream &stream);
Status drain(Stream &stream);
Status drain_all();
// Runs a stream until the event's `count`th record is done.
Status run_until(Stream &stream, const Event &event, uint64_t count);

// An error, and a broken capture, if this thread may not make such a call while it captures.
Status forbid_in_capture(const char *call);
// An error, and a broken capture, if the stream is being captured.
Status forbid_on_captured(Stream &stream, const char *call);

// The context that is current on this thread.
void *current_context();

}  // namespace emulator
