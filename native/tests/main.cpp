// Tests of the machine without Python, to be run under the sanitizers (scripts/test-native) and on other processors
// than the one at hand (scripts/test-processors). The argument `kernels` leaves out what needs threads.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "tests/check.h"

namespace {

std::atomic<long> count{0};

}  // namespace

void* operator new(size_t size) {
    count.fetch_add(1, std::memory_order_relaxed);
    if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
    throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace clarion::tests {

long allocations() { return count.load(); }

}  // namespace clarion::tests

int main(int n_arguments, char** arguments) {
    clarion::tests::test_simd();
    clarion::tests::test_products();
    if (n_arguments < 2 || std::strcmp(arguments[1], "kernels") != 0) {
        clarion::tests::test_pool();
        clarion::tests::test_program();
    }
    std::puts("passed");
}
