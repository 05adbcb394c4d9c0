// What native/portability/old_glibc.h says: functions that an old glibc or libstdc++ lacks, within the module alone.
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>

#define CLARION_WITHIN __attribute__((visibility("hidden")))

extern "C" {
// glibc 2.32: whether locks may be left out. They may not.
CLARION_WITHIN char __libc_single_threaded = 0;

// glibc 2.33: before, it was inline in a header. What Linux fills is what glibc declares, on 64-bit processors.
CLARION_WITHIN int fstat(int descriptor, struct stat* status) noexcept {
    return static_cast<int>(syscall(SYS_fstat, descriptor, status));
}
}

namespace std {
// libstdc++ of GCC 11.
CLARION_WITHIN void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std
