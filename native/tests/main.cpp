// Tests of the machine without Python, to be run under the sanitizers (scripts/test-native) and on other processors
// than the one at hand (scripts/test-processors), where CLARION_TEST_KERNELS leaves out what needs threads.
#include <atomic>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

#include "kernels/contents.h"
#include "machine/modules.h"
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

#ifdef __wasi__
// The C++ library of WASI has no exceptions. What throws, traps.
extern "C" {
void* __cxa_allocate_exception(size_t) noexcept { std::abort(); }
[[noreturn]] void __cxa_throw(void*, void*, void*) { std::abort(); }
}
#endif

int main() {
    clarion::add_contents(clarion::common_formats);
#ifdef CLARION_TEST_KERNELS
    clarion::add_contents(clarion::other_formats);
#else
    clarion::add_contents(clarion::common_operations);
    clarion::add_contents(clarion::latent_operations);
    clarion::add_contents(clarion::other_operations);
    clarion::add_contents(clarion::recurrent_operations);
    clarion::tests::test_modules();  // which loads the other formats
#endif
    clarion::tests::test_simd();
    clarion::tests::test_products();
    clarion::tests::test_sampling();
#ifndef CLARION_TEST_KERNELS
    clarion::tests::test_pool();
    clarion::tests::test_store();
    clarion::tests::test_program();
    clarion::tests::test_slot_states();
    clarion::tests::test_recurrent();
#endif
    std::printf("passed: %ld checks\n", clarion::tests::checks.load());
}
