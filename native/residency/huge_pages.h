// Memory of our own in huge pages, to copy weights into.
//
// One token reads every weight once, so every page costs an entry of the TLB, and under a hypervisor filling one takes
// longer than reading the 4 KB behind it. Files can rarely be mapped in huge pages; anonymous memory can. Measured on a
// virtual Zen 4: 13 GB/s from the mapping, 22 GB/s from a copy.
#pragma once

#include <cstddef>
#include <cstdint>

namespace clarion {

class HugePages {
  public:
    // Zeros, in huge pages as far as the system has them. Throws std::bad_alloc.
    explicit HugePages(size_t size);
    ~HugePages();
    HugePages(const HugePages&) = delete;
    HugePages& operator=(const HugePages&) = delete;

    uint8_t* data() { return data_; }
    size_t size() const { return mapped_ - alignment; }

    // Of data(): x86-64's huge pages, and most others'; elsewhere only an alignment.
    static constexpr size_t alignment = size_t{2} << 20;

  private:
    void* base_;
    size_t mapped_;
    uint8_t* data_;
};

}  // namespace clarion
