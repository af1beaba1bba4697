/*
 * Kernel interface numbers that distributions' headers may not have yet: asynchronous userfaultfd write-protect and the
 * PAGEMAP_SCAN ioctl, both Linux 6.7. Values from the kernel's uapi headers (linux/userfaultfd.h, linux/fs.h); what the
 * installed header already defines is taken from there.
 */
#ifndef GUEST_UFFD_ABI_H
#define GUEST_UFFD_ABI_H

#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Bits of a page's category. */
enum uffd_page_is {
    UFFD_PAGE_WRITTEN = 1 << 1,
    UFFD_PAGE_PRESENT = 1 << 3,
    UFFD_PAGE_SWAPPED = 1 << 4,
    UFFD_PAGE_PFNZERO = 1 << 5,
};

enum uffd_scan_flag {
    UFFD_SCAN_WP_MATCHING = 1 << 0,   /* write-protect what is reported, atomically per page */
    UFFD_SCAN_CHECK_WPASYNC = 1 << 1, /* refuse memory that is not registered */
};

/*
 * struct page_region and struct pm_scan_arg of linux/fs.h under names of our own, so that a newer header cannot clash.
 */
struct uffd_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct uffd_scan {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};

#define UFFD_IOC_PAGEMAP_SCAN _IOWR('f', 16, struct uffd_scan)

#endif
