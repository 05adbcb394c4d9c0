// For wheels: lets what a new glibc and a new libstdc++ compiled run on old ones, of 2018 and later. Included before every source.
//
// A linker takes the newest version of a symbol. Where an older one does what is needed here, `.symver` asks for that; where
// there is none, old_glibc.cpp defines the function. Which versions a wheel needs is checked when it is built.
#pragma once

#include <bits/c++config.h>

#if defined(__x86_64__)
#define CLARION_OLDEST "GLIBC_2.2.5"
#define CLARION_OLDEST_SETNAME "GLIBC_2.12"
#define CLARION_OLDEST_AFFINITY "GLIBC_2.3.4"
#elif defined(__aarch64__)
#define CLARION_OLDEST "GLIBC_2.17"
#define CLARION_OLDEST_SETNAME "GLIBC_2.17"
#define CLARION_OLDEST_AFFINITY "GLIBC_2.17"
#else
#error "native/portability/old_glibc.h: the first versions of this processor's symbols are not known"
#endif
#define CLARION_OLD(name, version) __asm__(".symver " name ", " name "@" version)

CLARION_OLD("log", CLARION_OLDEST);
CLARION_OLD("pthread_once", CLARION_OLDEST);
CLARION_OLD("pthread_setname_np", CLARION_OLDEST_SETNAME);
CLARION_OLD("pthread_setaffinity_np", CLARION_OLDEST_AFFINITY);
CLARION_OLD("_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE", "GLIBCXX_3.4.11");

// Waiting until a time of the steady clock then counts on the system's, as it did with glibc before 2.30.
#undef _GLIBCXX_USE_PTHREAD_COND_CLOCKWAIT
