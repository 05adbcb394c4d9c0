// A file mapped read-only, that survives being truncated by somebody else.
//
// Reading a mapped page that the file no longer holds raises SIGBUS, which ends the process. Here a handler,
// installed with the first mapping, puts zero pages over the rest of the mapping and sets its `damaged` flag:
// the interrupted instruction reads zeros and goes on, in a kernel and in numpy alike. Whoever computed with
// the bytes asks `damaged` afterwards and throws the result away.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>

namespace clarion {

struct MappedRegion;

class Mapping {
  public:
    // Throws std::system_error with the errno of what failed; std::invalid_argument when `path` names no
    // regular file; std::length_error when this process maps 4096 files already.
    explicit Mapping(const std::string& path);
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    const uint8_t* data() const { return data_; }  // null when the file is empty
    size_t size() const { return size_; }          // bytes, when it was opened
    // Whether bytes read so far may differ from the file that was opened: a page was gone when it was read,
    // or the file's length or time of modification is another now.
    bool damaged() const;
    // Begins to enter the pages that the page cache holds into this process's page table, in a thread of its own, up
    // to the first that it does not hold: the first reads of them then cause no faults. Once; only on Linux; and only
    // until the first pages are released.
    void populate();

  private:
    int descriptor_ = -1;
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
    int64_t modified_ = 0;  // nanoseconds
    MappedRegion* region_ = nullptr;
    std::atomic<bool> closing_{false};
    std::thread populating_;

    void map();
    bool populate_piece(size_t offset, size_t size) const;
};

// Lets go of the whole pages between `begin` and `begin + size` if they belong to a mapping; they come back from the
// file when they are read again. Other memory is left alone.
void release_mapped_pages(const uint8_t* begin, size_t size);

}  // namespace clarion
