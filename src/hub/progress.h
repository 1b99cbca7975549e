/* progress.h: how far a download is: on a terminal a line for each file under way and one for all, redrawn ten times a
 * second; elsewhere a log line a file, and one for all every ten seconds. One thread. Standard error. */
#ifndef MINISGL_HUB_PROGRESS_H
#define MINISGL_HUB_PROGRESS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress_row {
    const char *name, *note; /* note: what it waits for; NULL: it moves */
    size_t at, size;         /* bytes; size SIZE_MAX: unknown */
    uint64_t start;          /* ns */
    size_t first;            /* bytes that were there at the start */
};

enum { PROGRESS_ROWS = 8, PROGRESS_PAST = 16 };

struct progress {
    const char *name; /* the model's */
    bool terminal;
    int drawn;                /* lines on the screen */
    uint64_t shown, start;    /* ns; shown: the last redraw or line */
    size_t files, files_done; /* of this download */
    size_t size, at;          /* bytes of all, and of those that are here */
    size_t arrived;           /* bytes that came through the network */
    struct {
        uint64_t at;
        size_t arrived;
    } past[PROGRESS_PAST]; /* for the speed of the last seconds */
    unsigned n_past;
};

void progress_init(struct progress *p, const char *name);
/* Show the state when it is time to. */
void progress_show(struct progress *p, const struct progress_row *rows, int n);
/* Take the lines off the screen, so that something else may be said; they come back with the next show. */
void progress_clear(struct progress *p);

/* "1.23 GB"; "12 min"; for messages too. */
const char *size_words(char out[24], double bytes);
const char *time_words(char out[24], double seconds);

#endif
