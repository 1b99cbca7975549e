/* transfer.h: files from a hub to their places, several at a time.
 *
 * A file arrives in PART and gets its name WHOLE when its size and checksum are right. What came is kept when the line
 * is cut or the process ends: the next try reads it for the checksum and asks for the rest. A lock file, held while a
 * file arrives, makes two processes share the work: what another one is downloading is left to it, and taken as done
 * when it is. */
#ifndef MINISGL_HUB_TRANSFER_H
#define MINISGL_HUB_TRANSFER_H
#include "hub/digest.h"
#include "hub/http.h"
#include "hub/layout.h"
#include "hub/progress.h"

enum { TRANSFERS_AT_ONCE = 4 };

struct run;
struct transfer {
    /* from the caller */
    const struct hub_file *file;
    char *url;
    struct layout_paths paths; /* released by transfer_release, as url is */
    bool named_by_sum;         /* WHOLE's name is its checksum: if it is there with the right size it is right */
    bool hold;                 /* leave the checked file at PART; the caller renames it */
    /* its own */
    struct run *run; /* while transfers_run is at it */
    enum { T_WAITING, T_READING, T_PAUSED, T_RUNNING, T_DONE } state;
    bool elsewhere, reading_whole, begun;
    int fd, lock;   /* -1: not open */
    size_t at;      /* bytes of the file that are here and in the digest */
    size_t flushed; /* bytes that the disk was told to write */
    struct digest digest;
    CURL *easy;
    struct hub_answer answer;
    struct buf body; /* of an answer that is an error */
    struct hub_retry retry;
    size_t at_retry; /* bytes at the last try that failed */
    int bad_sums, disk_error;
    bool bad_range;
    size_t other_size; /* what the answer has, when that is not the file's size; else SIZE_MAX */
    uint64_t next;     /* T_PAUSED: when to go on, ns */
    struct progress_row row;
};

/* Fill in a transfer of one file; url and paths become its own. */
void transfer_init(struct transfer *t, const struct hub_file *f, char *url, const struct layout *l);
void transfer_release(struct transfer *t);

/* Until all are done; -1: one cannot be had. All locks are given back and all partial files kept. */
int transfers_run(struct hub_client *c, struct transfer *v, size_t n, struct progress *p, struct err *e);

/* Bytes that are still to come, as far as the disk tells. */
size_t transfer_left(const struct transfer *t);

#endif
