#include "buffer_copy.hpp"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "arguments.hpp"
#include "buffer_streams.hpp"
#include "gil.hpp"
#include "guarded.hpp"
#include "held_buffer.hpp"
#include "python_log_sink.hpp"
#include "stream_argument.hpp"
#include "tierpool/base/address.hpp"
#include "tierpool/pool/memory_copy.hpp"

namespace tierpool::bindings {
namespace {

/// In which stream's order, and beginning where in the buffer.
struct CopyOptions {
  std::optional<StreamHandle> stream;
  std::uint64_t offset_bytes = 0;
};

/// A buffer whose memory stays where it is meanwhile.
class BufferEnd {
 public:
  explicit BufferEnd(PyObject* object) : held_(buffer_object(object)) {}

  [[nodiscard]] std::uint64_t bytes() const noexcept { return held_.buffer().nbytes; }
  [[nodiscard]] CopyEnd end() const noexcept {
    return {.address = held_.buffer().address, .pool = &memory_of(held_.buffer()).pool()};
  }
  void prepare(const CopyOptions& options) const {
    if (options.stream) {
      keep_for_stream(held_.buffer(), *options.stream);
    }
  }

 private:
  const HeldBuffer held_;  // whose object the caller's arguments keep alive
};

/// The bytes of any object that offers them in one piece.
class PageableEnd {
 public:
  PageableEnd(PyObject* object, bool writable, const char* function) {
    if (PyObject_GetBuffer(object, &view_, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0) {
      PyErr_Clear();
      throw py::type_error(std::string(function) + "() takes a tierpool.Buffer or " + (writable ? "writable " : "") +
                           "contiguous memory with the buffer protocol, such as a NumPy array; got " +
                           Py_TYPE(object)->tp_name);
    }
  }
  ~PageableEnd() { PyBuffer_Release(&view_); }
  PageableEnd(const PageableEnd&) = delete;
  PageableEnd& operator=(const PageableEnd&) = delete;

  [[nodiscard]] std::uint64_t bytes() const noexcept { return static_cast<std::uint64_t>(view_.len); }
  [[nodiscard]] CopyEnd end() const noexcept { return {.address = address_of(view_.buf)}; }
  void prepare(const CopyOptions& /*options*/) const noexcept {}  // has been read or written on return

 private:
  Py_buffer view_{};
};

/// Bytes of a file. It is opened and closed without the GIL: either may wait for a network.
class FileEnd {
 public:
  FileEnd(std::string path, PyObject* file_offset_bytes, PyObject* nbytes) {
    if (file_offset_bytes != nullptr) {
      offset_bytes_ = parse_bytes(file_offset_bytes, "file_offset_bytes");
    }
    const bool to_its_end = nbytes == Py_None;
    if (!to_its_end) {
      bytes_ = parse_bytes(nbytes, "nbytes");
    }
    const WithoutGil without_gil;
    auto file = std::make_unique<const ReadableFile>(std::move(path));  // closed before the GIL is back if refused
    file->require(offset_bytes_, 0);
    if (to_its_end) {
      bytes_ = file->size_bytes() - offset_bytes_;
    }
    file_ = std::move(file);
  }
  ~FileEnd() {
    const WithoutGil without_gil;
    file_.reset();
  }
  FileEnd(const FileEnd&) = delete;
  FileEnd& operator=(const FileEnd&) = delete;

  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] CopyEnd end() const noexcept { return {.address = offset_bytes_, .file = file_.get()}; }
  void prepare(const CopyOptions& /*options*/) const noexcept {}  // has been read on return

 private:
  std::unique_ptr<const ReadableFile> file_;
  std::uint64_t offset_bytes_ = 0;
  std::uint64_t bytes_ = 0;
};

struct Direction {
  const char* function;
  const char* other;  ///< what is no buffer of ours, as its parameter says
  const char* remedy;
  bool into_self;
};

constexpr Direction kFrom{"copy_from", "source", "pass a slice of it", true};
constexpr Direction kTo{"copy_to", "destination", "pass a slice of it", false};
constexpr Direction kFromFile{"copy_from_file", "part of the file", "pass nbytes", true};

void check_fits(const Direction& direction, std::uint64_t bytes, std::uint64_t capacity, std::uint64_t offset_bytes) {
  if (offset_bytes > capacity || bytes > capacity - offset_bytes) {
    throw py::value_error(std::string(direction.function) + "(): the " + direction.other + " has " +
                          std::to_string(bytes) + " bytes, the buffer " + std::to_string(capacity) + " from offset " +
                          std::to_string(offset_bytes) + "; " + direction.remedy);
  }
}

template <typename Other>
void run(const Direction& direction, const BufferEnd& self, const Other& other, const CopyOptions& options) {
  const std::uint64_t bytes = other.bytes();
  check_fits(direction, bytes, self.bytes(), options.offset_bytes);
  CopyEnd own = self.end();
  own.address += options.offset_bytes;
  const CopyEnd foreign = other.end();
  // Before anything is enqueued: what fails half-way is under way, too.
  self.prepare(options);
  other.prepare(options);
  const LogDelivery logs;
  const WithoutGil without_gil;
  copy_memory(direction.into_self ? own : foreign, direction.into_self ? foreign : own, bytes, options.stream);
}

CopyOptions parse_options(py::handle stream, PyObject* offset_bytes) {
  CopyOptions options;
  if (!stream.is_none()) {
    options.stream = parse_stream(stream);
  }
  if (offset_bytes != nullptr) {
    options.offset_bytes = parse_bytes(offset_bytes, "offset_bytes");
  }
  return options;
}

py::object copy(const Direction& direction, PyObject* self, PyObject* arguments, PyObject* keywords) {
  const char* names[] = {direction.other, "stream", "offset_bytes", nullptr};
  const std::string format = std::string("O|O$O:") + direction.function;
  PyObject* other = nullptr;
  PyObject* stream = Py_None;
  PyObject* offset_bytes = nullptr;
  if (PyArg_ParseTupleAndKeywords(arguments, keywords, format.c_str(), const_cast<char**>(names), &other, &stream,
                                  &offset_bytes) == 0) {
    throw py::error_already_set();
  }
  const CopyOptions options = parse_options(stream, offset_bytes);
  const BufferEnd own(self);
  if (is_buffer(other)) {
    run(direction, own, BufferEnd(other), options);
  } else {
    run(direction, own, PageableEnd(other, !direction.into_self, direction.function), options);
  }
  return py::none();
}

/// What open() takes, as the system has it.
std::string parse_path(PyObject* path) {
  PyObject* encoded = nullptr;
  if (PyUnicode_FSConverter(path, &encoded) == 0) {
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::bytes>(encoded);
}

py::object copy_file(PyObject* self, PyObject* arguments, PyObject* keywords) {
  static const char* names[] = {"path", "stream", "offset_bytes", "file_offset_bytes", "nbytes", nullptr};
  PyObject* path = nullptr;
  PyObject* stream = Py_None;
  PyObject* offset_bytes = nullptr;
  PyObject* file_offset_bytes = nullptr;
  PyObject* nbytes = Py_None;
  if (PyArg_ParseTupleAndKeywords(arguments, keywords, "O|O$OOO:copy_from_file", const_cast<char**>(names), &path,
                                  &stream, &offset_bytes, &file_offset_bytes, &nbytes) == 0) {
    throw py::error_already_set();
  }
  const CopyOptions options = parse_options(stream, offset_bytes);
  const BufferEnd own(self);
  run(kFromFile, own, FileEnd(parse_path(path), file_offset_bytes, nbytes), options);
  return py::none();
}

}  // namespace

PyObject* copy_from(PyObject* self, PyObject* arguments, PyObject* keywords) {
  return guarded([&] { return copy(kFrom, self, arguments, keywords); });
}

PyObject* copy_from_file(PyObject* self, PyObject* arguments, PyObject* keywords) {
  return guarded([&] { return copy_file(self, arguments, keywords); });
}

PyObject* copy_to(PyObject* self, PyObject* arguments, PyObject* keywords) {
  return guarded([&] { return copy(kTo, self, arguments, keywords); });
}

}  // namespace tierpool::bindings
