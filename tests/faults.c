/* Disk faults for tests: loaded before the C library, it lets fsync, fdatasync and write fail while a file exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int wanted(const char *variable) {
    const char *path = getenv(variable);
    return path != NULL && access(path, F_OK) == 0;
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (wanted("FAULT_FSYNC")) { errno = EIO; return -1; }
    return real(fd);
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (wanted("FAULT_FSYNC")) { errno = EIO; return -1; }
    return real(fd);
}

/* A write that stops half-way, as a full or dying disk's may. */
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (wanted("FAULT_WRITE")) {
        if (count > 1) { return real(fd, bytes, count / 2, offset); }
        errno = EIO;
        return -1;
    }
    return real(fd, bytes, count, offset);
}
