// A test fails by printing where and leaving.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <stdexcept>
#include <string>

namespace clarion::tests {

inline std::atomic<long> checks{0};

inline void check(bool condition, std::source_location at = std::source_location::current()) {
    checks.fetch_add(1, std::memory_order_relaxed);
    if (condition) return;
    std::fprintf(stderr, "%s:%u: failed in %s\n", at.file_name(), at.line(), at.function_name());
    std::_Exit(1);
}

// The message of the std::invalid_argument that body throws; fails if it throws none.
template <typename Body>
std::string refusal(Body body, std::source_location at = std::source_location::current()) {
    try {
        body();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    check(false, at);
    return {};
}

void test_modules();
void test_simd();
void test_products();
void test_pool();
void test_program();
void test_recurrent();
void test_sampling();
void test_slot_states();
void test_store();

// Calls of operator new since the start of the process (main.cpp).
long allocations();

}  // namespace clarion::tests
