// Streams, events, captures and graphs: who waits for what, and when work runs.

#include "driver.h"
#include "memory.h"

namespace emulator {

namespace {

// Runs work at the call instead of at the wait.
bool is_early() {
  static const bool early = environment_number("CAMSHAFT_EMULATE_EARLY", 0) != 0;
  return early;
}

template <typename T>
std::shared_ptr<T> find(const std::map<void *, std::shared_ptr<T>> &all, void *handle) {
  auto found = all.find(handle);
  return found == all.end() ? nullptr : found->second;
}

Status count_execution(const std::string &what) {
  static const long long fatal = environment_number("CAMSHAFT_EMULATE_LOST", 0);
  if (++driver().executions != fatal) return SUCCESS;
  report(what + " is the execution that CAMSHAFT_EMULATE_LOST names: the device is lost");
  return ILLEGAL_ADDRESS;
}

}  // namespace

Stream *find_stream(void *handle) {
  // The legacy default stream, by its name and by its other names.
  if (reinterpret_cast<uintptr_t>(handle) <= 2) return &driver().default_stream;
  auto found = driver().streams.find(handle);
  return found == driver().streams.end() ? nullptr : found->second.get();
}

std::shared_ptr<Event> find_event(void *handle) { return find(driver().events, handle); }

bool is_stream(void *stream) { return find_stream(stream) != nullptr; }

Status run_one(Stream &stream) {
  if (driver().lost != SUCCESS) return driver().lost;
  if (stream.queue.empty()) return SUCCESS;
  Entry entry = std::move(stream.queue.front());
  stream.queue.pop_front();
  Status status = entry.counts ? count_execution(entry.what) : SUCCESS;
  if (status == SUCCESS) {
    if (entry.counts) set_running(entry.what.c_str());
    status = entry.work();
    if (entry.counts) set_running(nullptr);
  }
  if (status != SUCCESS) driver().lost = status;
  return status;
}

Status drain(Stream &stream) {
  while (!stream.queue.empty()) {
    Status status = run_one(stream);
    if (status != SUCCESS) return status;
  }
  return driver().lost;
}

Status drain_all() {
  Status status = drain(driver().default_stream);
  for (auto &[handle, stream] : driver().streams) {
    if (status == SUCCESS) status = drain(*stream);
  }
  return status;
}

Status run_until(Stream &stream, const Event &event, uint64_t count) {
  while (event.done < count && !stream.queue.empty()) {
    Status status = run_one(stream);
    if (status != SUCCESS) return status;
  }
  return driver().lost;
}

Status enqueue(void *handle, std::string what, Work work, bool counts) {
  Stream *stream = find_stream(handle);
  if (stream == nullptr) {
    report(what + ": there is no such stream");
    return INVALID_HANDLE;
  }
  if (stream->capture) {
    stream->capture->entries.push_back(Entry{std::move(what), std::move(work), counts});
    return SUCCESS;
  }
  stream->queue.push_back(Entry{std::move(what), std::move(work), counts});
  return is_early() ? drain(*stream) : SUCCESS;
}

Status forbid_on_captured(Stream &stream, const char *call) {
  if (!stream.capture) return SUCCESS;
  stream.capture_broken = true;
  report(std::string(call) + " is not possible on a stream that is being captured");
  return STREAM_CAPTURE_UNSUPPORTED;
}

Status forbid_in_capture(const char *call) {
  for (auto &[handle, stream] : driver().streams) {
    bool global = stream->capture_mode == 0;
    bool own = stream->capture_mode == 1 && stream->capture_thread == std::this_thread::get_id();
    if (stream->capture && (global || own)) return forbid_on_captured(*stream, call);
  }
  return SUCCESS;
}

}  // namespace emulator

using namespace emulator;

namespace {

Status create_stream(void **stream) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto made = std::make_unique<Stream>();
  *stream = made.get();
  driver().streams[made.get()] = std::move(made);
  return SUCCESS;
}

}  // namespace

EMULATED Status cuStreamCreate(void **stream, unsigned) { return create_stream(stream); }

EMULATED Status cuStreamCreateWithPriority(void **stream, unsigned, int) {
  return create_stream(stream);
}

EMULATED Status cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  Call call(Needs::Context);
  *least = 0;
  *greatest = -5;
  return call.status;
}

EMULATED Status cuStreamDestroy_v2(void *handle) {
  Call call(Needs::Driver);
  auto found = driver().streams.find(handle);
  if (found == driver().streams.end()) return INVALID_HANDLE;
  // A stream's work outlives its handle.
  Status status = drain(*found->second);
  for (auto &[other, event] : driver().events) {
    if (event->stream == found->second.get()) event->stream = nullptr;
  }
  driver().streams.erase(found);
  return status;
}

EMULATED Status cuStreamSynchronize(void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  Status status = forbid_on_captured(*stream, "cuStreamSynchronize");
  return status == SUCCESS ? drain(*stream) : status;
}

EMULATED Status cuStreamQuery(void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  Status status = forbid_on_captured(*stream, "cuStreamQuery");
  // Who asks again and again shall see progress.
  if (status == SUCCESS) status = run_one(*stream);
  return status != SUCCESS || stream->queue.empty() ? status : NOT_READY;
}

EMULATED Status cuStreamWaitEvent(void *handle, void *event_handle, unsigned) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Stream *stream = find_stream(handle);
  auto event = find_event(event_handle);
  if (stream == nullptr || !event) return INVALID_HANDLE;
  if (stream->capture) {
    if (event->captured_in == stream->capture) return SUCCESS;
    stream->capture_broken = true;
    report("cuStreamWaitEvent: a captured stream waits for an event from outside of its capture");
    return STREAM_CAPTURE_ISOLATION;
  }
  if (event->captured_in) {
    report("cuStreamWaitEvent: captures of more than one stream are not emulated");
    return STREAM_CAPTURE_UNSUPPORTED;
  }
  if (event->done == event->recorded) return SUCCESS;
  auto wait = [event, from = event->stream, count = event->recorded] {
    return event->done >= count ? SUCCESS : run_until(*from, *event, count);
  };
  return enqueue(handle, "a wait for an event", wait, false);
}

EMULATED Status cuLaunchHostFunc(void *handle, void (*function)(void *), void *argument) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto work = [function, argument] {
    function(argument);
    return SUCCESS;
  };
  return enqueue(handle, "a host function", work, false);
}

EMULATED Status cuEventCreate(void **event, unsigned flags) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  constexpr unsigned DISABLE_TIMING = 2;
  auto made = std::make_shared<Event>();
  made->timing = (flags & DISABLE_TIMING) == 0;
  *event = made.get();
  driver().events[made.get()] = made;
  return SUCCESS;
}

EMULATED Status cuEventDestroy_v2(void *handle) {
  Call call(Needs::Driver);
  return driver().events.erase(handle) == 1 ? driver().lost : INVALID_HANDLE;
}

EMULATED Status cuEventRecord(void *event_handle, void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Stream *stream = find_stream(handle);
  auto event = find_event(event_handle);
  if (stream == nullptr || !event) return INVALID_HANDLE;
  event->captured_in = stream->capture;
  if (stream->capture) return SUCCESS;
  event->stream = stream;
  auto record = [event, count = ++event->recorded] {
    event->done = count;
    event->when = std::chrono::steady_clock::now();
    return SUCCESS;
  };
  return enqueue(handle, "the record of an event", record, false);
}

EMULATED Status cuEventRecordWithFlags(void *event, void *stream, unsigned) {
  return cuEventRecord(event, stream);
}

EMULATED Status cuEventSynchronize(void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto event = find_event(handle);
  if (!event) return INVALID_HANDLE;
  if (event->captured_in) return CAPTURED_EVENT;
  if (event->done == event->recorded) return SUCCESS;
  return run_until(*event->stream, *event, event->recorded);
}

EMULATED Status cuEventQuery(void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto event = find_event(handle);
  if (!event) return INVALID_HANDLE;
  if (event->captured_in) return CAPTURED_EVENT;
  if (event->done == event->recorded) return SUCCESS;
  Status status = run_one(*event->stream);
  return status != SUCCESS || event->done == event->recorded ? status : NOT_READY;
}

EMULATED Status cuEventElapsedTime_v2(float *milliseconds, void *start_handle, void *end_handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto start = find_event(start_handle), end = find_event(end_handle);
  if (!start || !end || !start->timing || !end->timing) return INVALID_HANDLE;
  if (start->recorded == 0 || end->recorded == 0) return INVALID_HANDLE;
  if (start->done != start->recorded || end->done != end->recorded) return NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(end->when - start->when).count();
  return SUCCESS;
}

EMULATED Status cuEventElapsedTime(float *milliseconds, void *start, void *end) {
  return cuEventElapsedTime_v2(milliseconds, start, end);
}

EMULATED Status cuStreamBeginCapture_v2(void *handle, unsigned mode) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr || mode > 2) return INVALID_VALUE;
  if (stream == &driver().default_stream) {
    report("cuStreamBeginCapture: the default stream cannot be captured");
    return STREAM_CAPTURE_UNSUPPORTED;
  }
  if (stream->capture) return INVALID_VALUE;
  stream->capture = std::make_shared<Graph>();
  stream->capture_mode = mode;
  stream->capture_thread = std::this_thread::get_id();
  stream->capture_broken = false;
  return SUCCESS;
}

EMULATED Status cuStreamIsCapturing(void *handle, unsigned *status) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  *status = !stream->capture ? 0 : stream->capture_broken ? 2 : 1;
  return SUCCESS;
}

EMULATED Status cuStreamEndCapture(void *handle, void **graph) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  *graph = nullptr;
  Stream *stream = find_stream(handle);
  if (stream == nullptr) return INVALID_HANDLE;
  if (!stream->capture) return STREAM_CAPTURE_UNMATCHED;
  constexpr unsigned RELAXED = 2;
  if (stream->capture_mode != RELAXED && stream->capture_thread != std::this_thread::get_id()) {
    return STREAM_CAPTURE_WRONG_THREAD;
  }
  auto captured = std::move(stream->capture);
  stream->capture = nullptr;
  if (stream->capture_broken) return STREAM_CAPTURE_INVALIDATED;
  *graph = captured.get();
  driver().graphs[captured.get()] = std::move(captured);
  return SUCCESS;
}

EMULATED Status cuGraphInstantiateWithFlags(void **executable, void *handle, unsigned long long) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto graph = find(driver().graphs, handle);
  if (!graph) return INVALID_HANDLE;
  auto made = std::make_shared<Graph>(*graph);
  *executable = made.get();
  driver().executable_graphs[made.get()] = std::move(made);
  return SUCCESS;
}

EMULATED Status cuGraphGetNodes(void *handle, void **nodes, size_t *count) {
  Call call(Needs::Context);
  auto graph = find(driver().graphs, handle);
  if (!graph) return INVALID_HANDLE;
  if (nodes != nullptr) return NOT_SUPPORTED;
  *count = graph->entries.size();
  return call.status;
}

EMULATED Status cuGraphUpload(void *executable, void *stream) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  return find(driver().executable_graphs, executable) && is_stream(stream) ? SUCCESS : INVALID_HANDLE;
}

EMULATED Status cuGraphLaunch(void *executable, void *handle) {
  Call call(Needs::Context);
  if (call.status != SUCCESS) return call.status;
  auto graph = find(driver().executable_graphs, executable);
  Stream *stream = find_stream(handle);
  if (!graph || stream == nullptr) return INVALID_HANDLE;
  Status status = forbid_on_captured(*stream, "cuGraphLaunch");
  for (const Entry &entry : graph->entries) {
    if (status != SUCCESS) return status;
    status = enqueue(handle, entry.what, entry.work, entry.counts);
  }
  return status;
}

EMULATED Status cuGraphExecDestroy(void *executable) {
  Call call(Needs::Driver);
  return driver().executable_graphs.erase(executable) == 1 ? driver().lost : INVALID_HANDLE;
}

EMULATED Status cuGraphDestroy(void *graph) {
  Call call(Needs::Driver);
  return driver().graphs.erase(graph) == 1 ? driver().lost : INVALID_HANDLE;
}
