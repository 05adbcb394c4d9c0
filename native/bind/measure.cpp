// What the processor can do, measured with the instructions of one set: a module of its own, which no program needs.
#include "kernels/measure.h"

#include <nanobind/nanobind.h>

namespace nb = nanobind;
using namespace clarion;

NB_MODULE(CLARION_MODULE, m) {
    m.def("bandwidth", &measure_bandwidth, nb::arg("threads"), nb::arg("seconds"), nb::arg("bytes"),
          nb::call_guard<nb::gil_scoped_release>(),
          "bytes a second that `threads` threads read together, each from `bytes` of its own");
    m.def("multiply", &measure_multiply, nb::arg("threads"), nb::arg("seconds"),
          nb::call_guard<nb::gil_scoped_release>(),
          "products of 8-bit integers, added to 32-bit sums, that `threads` threads do in a second");
    m.def("fma", &measure_fma, nb::arg("threads"), nb::arg("seconds"),
          nb::call_guard<nb::gil_scoped_release>(),
          "products of floats, each added to a sum, that `threads` threads do in registers in a second");
    m.def("change", &measure_change, nb::arg("threads"), nb::arg("seconds"), nb::arg("bytes"),
          nb::call_guard<nb::gil_scoped_release>(),
          "bytes a second that `threads` threads load, multiply and store, each `bytes` of its own");
}
