#pragma once

#include "buffer_type.hpp"

namespace tierpool::bindings {

/// `Buffer.copy_from(source, stream=None, *, offset_bytes=0)`: all bytes of the source.
[[nodiscard]] PyObject* copy_from(PyObject* self, PyObject* arguments, PyObject* keywords);
inline constexpr const char* kCopyFromDoc =
    "copy_from($self, /, source, stream=None, *, offset_bytes=0)\n--\n\n"
    "Copy all bytes of `source` into the buffer.\n\n"
    "Parameters\n----------\n"
    "source : Buffer or contiguous object with the buffer protocol\n    At most `nbytes` bytes.\n"
    "stream : int or stream object, optional\n"
    "    Enqueue the copy there and return early; a source that is no `Buffer` has been read on return. Without one\n"
    "    the copy is done on return.\n"
    "offset_bytes : int\n    Where in the buffer it begins.\n\n"
    "Raises\n------\n"
    "ValueError\n    When the source has more bytes than the buffer, or one of them was released.\n"
    "TypeError\n    For a source that is no contiguous memory.\n"
    "DeviceError\n    When the device refuses, or for a stream where both are memory of the host.\n\n"
    "Notes\n-----\n"
    "Memory that is not pinned reaches a GPU through pinned memory of a pool that is kept for that.";

/// `Buffer.copy_from_file(path, stream=None, *, offset_bytes=0, file_offset_bytes=0, nbytes=None)`: to the file's end.
[[nodiscard]] PyObject* copy_from_file(PyObject* self, PyObject* arguments, PyObject* keywords);
inline constexpr const char* kCopyFromFileDoc =
    "copy_from_file($self, /, path, stream=None, *, offset_bytes=0, file_offset_bytes=0, nbytes=None)\n--\n\n"
    "Copy bytes of a file into the buffer, read by several threads, to a GPU through pinned memory meanwhile.\n\n"
    "Parameters\n----------\n"
    "path : str, bytes or path-like\n    A regular file.\n"
    "stream : int or stream object, optional\n"
    "    Enqueue the copies there and return when the file has been read. Without one they are done on return.\n"
    "offset_bytes : int\n    Where in the buffer the copy begins.\n"
    "file_offset_bytes : int\n    Where in the file it begins.\n"
    "nbytes : int, optional\n"
    "    How much to copy; unless given, to the file's end by the size that it is told to have when it is opened.\n\n"
    "Raises\n------\n"
    "ReadError\n"
    "    An OSError: when the file cannot be opened or read, or has no such part. What the buffer holds then is\n"
    "    undefined.\n"
    "ValueError\n    When the buffer has less room, or was released.\n"
    "DeviceError\n    When the device refuses, or for a stream where the buffer is memory of the host.";

/// `Buffer.copy_to(destination, stream=None, *, offset_bytes=0)`: as many bytes as the destination has.
[[nodiscard]] PyObject* copy_to(PyObject* self, PyObject* arguments, PyObject* keywords);
inline constexpr const char* kCopyToDoc =
    "copy_to($self, /, destination, stream=None, *, offset_bytes=0)\n--\n\n"
    "Fill `destination` from the buffer.\n\n"
    "Parameters and errors are those of `copy_from`; a destination that is no `Buffer` has been written on return,\n"
    "with a stream too.";

}  // namespace tierpool::bindings
