/* Preloaded: reads of one file fail, end short, find the file cut, or hang, from a chosen read on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum fault { FAILS, ENDS, IS_CUT, HANGS };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static char broken_path[PATH_MAX];
static pthread_cond_t healed = PTHREAD_COND_INITIALIZER;
static long reads_until_fault = -1; /* negative: none is to come */
static enum fault fault;
static long cut_bytes;
static long reads;
static long faults;
static int is_hanging;
static long waiting; /* reads */
static __thread int ends_next; /* the rest of a read that came up short */

/* The read after `reads_before` others of `path` fails, once; a disk that hangs does so from then on. */
void disk_break(const char *path, long reads_before, int kind, long size_bytes) {
  pthread_mutex_lock(&mutex);
  snprintf(broken_path, sizeof(broken_path), "%s", path);
  reads_until_fault = reads_before;
  fault = (enum fault)kind;
  cut_bytes = size_bytes;
  pthread_mutex_unlock(&mutex);
}

/* No fault is to come; how many there were. */
long disk_heal(void) {
  pthread_mutex_lock(&mutex);
  reads_until_fault = -1;
  long count = faults;
  faults = 0;
  is_hanging = 0;
  pthread_cond_broadcast(&healed);
  pthread_mutex_unlock(&mutex);
  return count;
}

/* Of the file that disk_break() named. */
long disk_reads(void) {
  pthread_mutex_lock(&mutex);
  long count = reads;
  pthread_mutex_unlock(&mutex);
  return count;
}

/* Reads that hang. */
long disk_waiting(void) {
  pthread_mutex_lock(&mutex);
  long count = waiting;
  pthread_mutex_unlock(&mutex);
  return count;
}

static int is_broken_file(int descriptor) {
  char link[64];
  char path[PATH_MAX];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof(path) - 1);
  if (length < 0) {
    return 0;
  }
  path[length] = 0;
  return strcmp(path, broken_path) == 0;
}

static ssize_t read_or_fail(int descriptor, void *destination, size_t bytes, off_t offset) {
  ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
  if (ends_next) {
    ends_next = 0;
    return 0;
  }
  pthread_mutex_lock(&mutex);
  int is_due = 0;
  /* Whole pages: weights, and not the file's header. */
  if ((uintptr_t)destination % 4096 == 0 && is_broken_file(descriptor)) {
    ++reads;
    is_due = reads_until_fault >= 0 && reads_until_fault-- == 0;
    faults += is_due;
    is_hanging |= is_due && fault == HANGS;
    while (is_hanging) {
      ++waiting;
      pthread_cond_wait(&healed, &mutex);
      --waiting;
    }
  }
  enum fault kind = fault;
  if (is_due && kind == IS_CUT && truncate(broken_path, cut_bytes) != 0) {
    is_due = 0;
  }
  pthread_mutex_unlock(&mutex);
  if (is_due && kind == FAILS) {
    errno = EIO;
    return -1;
  }
  if (is_due && kind == ENDS) {
    ends_next = 1;
    return real(descriptor, destination, bytes / 2, offset);
  }
  return real(descriptor, destination, bytes, offset);
}

ssize_t pread(int descriptor, void *destination, size_t bytes, off_t offset) {
  return read_or_fail(descriptor, destination, bytes, offset);
}

ssize_t pread64(int descriptor, void *destination, size_t bytes, off_t offset) {
  return read_or_fail(descriptor, destination, bytes, offset);
}
