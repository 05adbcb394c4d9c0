#include "machine/checked.h"

#include "machine/message.h"

namespace clarion {

int64_t checked_product(std::initializer_list<int64_t> factors, Message what) {
    int64_t product = 1;
    for (const int64_t factor : factors) {
        if (factor < 0 || (factor > 0 && product > INT64_MAX / factor))
            refuse({text(what), ": the size is negative or too large"});
        product *= factor;
    }
    return product;
}

int64_t checked_add(int64_t a, int64_t b, Message what) {
    if (a < 0 || b < 0 || a > INT64_MAX - b) refuse({text(what), ": the size is negative or too large"});
    return a + b;
}

void expect_range(int64_t value, int64_t least, int64_t most, Message what) {
    if (value < least || value > most)
        refuse({text(what), ": found ", value, ", expected ", least, " to ", most});
}

}  // namespace clarion
