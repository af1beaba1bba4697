/* What a migration says about itself while it runs and afterwards. Names, units and meaning are those of QEMU's
 * query-migrate (qapi/migration.json, MigrationInfo and MigrationStats). */
#ifndef GODWIT_INFO_H
#define GODWIT_INFO_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/api.h>
#include <godwit/error.h>

GODWIT_BEGIN

enum { GODWIT_CHANNELS_MAX = 255, GODWIT_DEVICE_MAX = 63 };

/* QEMU's MigrationStatus, the values that occur here. */
enum godwit_status {
    GODWIT_STATUS_NONE,
    GODWIT_STATUS_SETUP,
    GODWIT_STATUS_CANCELLING,
    GODWIT_STATUS_CANCELLED,
    GODWIT_STATUS_ACTIVE,
    GODWIT_STATUS_DEVICE, /* guest stopped; also while the outcome is unknown */
    GODWIT_STATUS_COMPLETED,
    GODWIT_STATUS_FAILED, /* published after cleanup only, as QEMU 11.1 does */
};

/* QEMU's spelling: "none", "setup", ... */
GODWIT_API const char *godwit_status_name(enum godwit_status status);

enum godwit_outcome {
    GODWIT_OUTCOME_UNKNOWN, /* nobody answers, or nobody knows */
    GODWIT_OUTCOME_RUNNING, /* the guest was started on the destination */
    GODWIT_OUTCOME_NEVER,   /* it never ran on the destination and never will */
};

struct godwit_channel_info {
    uint64_t bytes;         /* everything given to the transport */
    uint64_t inline_bytes;  /* page bytes sent in the stream */
    uint64_t placed_bytes;  /* page bytes written into the destination's memory by puts */
    uint64_t normal, duplicate; /* pages, zero pages: of those that are put, the ones that were noticed */
    uint64_t packets;       /* data records */
    uint64_t busy_ns;       /* time not spent waiting for work, for the rate limit or for keys */
    uint64_t replacements;  /* connections that took the place of the one before */
    char device[GODWIT_DEVICE_MAX + 1]; /* that carries it, such as "mlx5_0"; "" where there is none */
    uint32_t queue_pair;                /* its number on this side; 0 where there is none */
    char tls_version[8];                /* "TLS1.3"; "" where pages are not encrypted */
    char tls_cipher[24];                /* "AES-256-GCM" */
    bool tls_kernel;                    /* the kernel does its records */
};

struct godwit_ram_info {
    uint64_t transferred;     /* bytes, headers included */
    uint64_t remaining;       /* bytes: dirty pages x page-size */
    uint64_t total;           /* bytes of all blocks */
    uint64_t duplicate;       /* zero pages, holes included */
    uint64_t normal;          /* pages sent with content */
    uint64_t normal_bytes;
    uint64_t dirty_pages_rate; /* pages per second, last pass */
    double mbps;              /* 10^6 bit/s: last second; of a completed run the whole transfer without setup */
    uint64_t pages_per_second;
    uint64_t dirty_sync_count;
    uint64_t page_size;
    uint64_t multifd_bytes;   /* through data channels */
    uint64_t precopy_bytes, downtime_bytes; /* split by phase: guest running, guest stopped */
};

struct godwit_info {
    enum godwit_status status;
    enum godwit_outcome outcome; /* meaningful once RUN may have been sent */
    struct godwit_error error;   /* code 0: none */
    uint64_t total_time_ms, setup_time_ms;
    uint64_t expected_downtime_ms, downtime_ms; /* downtime: stop asked for until RUNNING arrived */
    uint64_t state_bytes;        /* device state */
    uint64_t pinned_bytes;       /* guest memory registered with a device on this side */
    struct godwit_ram_info ram;
    unsigned channel_count;
    struct godwit_channel_info channels[GODWIT_CHANNELS_MAX];
};

GODWIT_END

#endif
