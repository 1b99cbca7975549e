/* transfer.c: see transfer.h. One thread runs everything: sockets through libcurl's multi interface, files and
 * checksums between its turns. Refuses bytes beyond a file's size, and a file whose checksum was wrong twice. */
#include "hub/transfer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    READ_BYTES = 256 << 10,
    FLUSH_BYTES = 32 << 20,
    TOLD_BYTES = 10 << 20,
    PIECE = 4 << 20,
    BODY_MAX = 1 << 16,
    BAD_SUMS_MAX = 2,
    PROGRESS_BYTES = 1 << 16,
    TURN_MS = 100,
    LOCK_NS = 200000000,
    TELL_MS = 2000
};

struct run {
    struct hub_client *c;
    struct transfer *v;
    size_t n;
    CURLM *multi;
    struct progress *p;
    char *piece; /* PIECE bytes for reading what is there */
    uint64_t locks_tried;
    struct err *e;
};

void transfer_init(struct transfer *t, const struct hub_file *f, char *url, const struct layout *l) {
    *t =
        (struct transfer){.file = f, .url = url, .fd = -1, .lock = -1, .named_by_sum = l->s->source == HUB_HUGGINGFACE};
    layout_paths(l, f, &t->paths);
    buf_init(&t->body, BODY_MAX);
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

void transfer_release(struct transfer *t) {
    if (t->easy) curl_easy_cleanup(t->easy);
    digest_release(&t->digest);
    close_fd(&t->fd);
    close_fd(&t->lock);
    buf_release(&t->body);
    layout_paths_release(&t->paths);
    free(t->url);
}

static size_t size_on_disk(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (size_t)st.st_size : SIZE_MAX;
}

static bool whole_there(const struct transfer *t) {
    size_t has = size_on_disk(t->paths.whole);
    return has != SIZE_MAX && (t->file->size == SIZE_MAX || has == t->file->size);
}

size_t transfer_left(const struct transfer *t) {
    if (t->state == T_DONE || t->file->size == SIZE_MAX || whole_there(t)) return 0;
    size_t has = size_on_disk(t->paths.part);
    return has == SIZE_MAX ? t->file->size : has < t->file->size ? t->file->size - has : 0;
}

/* ---- trouble with the disk ---- */

static int disk_failure(const struct transfer *t, const char *path, int error, struct err *e) {
    char left[24];
    if (error == ENOSPC || error == EDQUOT)
        return err_machine(
            e,
            "the disk is full: %s came to %zu bytes of %s and no further; make room for %s more, or let HF_HOME or "
            "MODELSCOPE_CACHE name another disk (what came is kept)",
            t->file->name, t->at, path, size_words(left, (double)transfer_left(t)));
    return err_machine(e, "%s cannot be written: %s", path, strerror(error));
}

/* ---- locks ---- */

/* 1: held; 0: another process has it; -1: error. A lock file that was deleted in between (some tools do) is opened
 * anew. */
static int take_lock(struct transfer *t, struct err *e) {
    struct stat a, b;
    if (make_folders(t->paths.lock, e)) return -1;
    for (int i = 0; i < 10; i++) {
        t->lock = open(t->paths.lock, O_RDWR | O_CREAT | O_CLOEXEC, 0664);
        if (t->lock < 0) return err_machine(e, "the lock %s cannot be opened: %s", t->paths.lock, strerror(errno));
        if (flock(t->lock, LOCK_EX | LOCK_NB)) {
            int error = errno;
            if (error == EWOULDBLOCK)
                close_fd(&t->lock);
            else
                log_debug("%s: %s; going on without the lock", t->paths.lock,
                          strerror(error)); /* a disk that has none */
            return error != EWOULDBLOCK;
        }
        if (!fstat(t->lock, &a) && !stat(t->paths.lock, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev) return 1;
        close_fd(&t->lock);
    }
    return 0;
}

/* ---- one file: what is there ---- */

static void done(struct run *r, struct transfer *t) {
    t->state = T_DONE;
    close_fd(&t->fd);
    close_fd(&t->lock);
    r->p->files_done++;
}

static void counted(struct run *r, struct transfer *t, size_t at) {
    r->p->at += at - t->at; /* may go down; wraps back */
    t->at = t->row.at = at;
}

static int start_over(struct run *r, struct transfer *t) {
    if (ftruncate(t->fd, 0)) return disk_failure(t, t->paths.part, errno, r->e);
    digest_release(&t->digest);
    digest_init(&t->digest, t->file->kind, t->file->size);
    counted(r, t, 0);
    t->row.first = t->flushed = 0;
    return 0;
}

static int open_part(struct run *r, struct transfer *t) {
    if (make_folders(t->paths.part, r->e)) return -1;
    t->fd = open(t->paths.part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (t->fd < 0) return disk_failure(t, t->paths.part, errno, r->e);
    digest_init(&t->digest, t->file->kind, t->file->size);
    size_t has = size_on_disk(t->paths.part);
    /* without a checksum nothing tells whether what is there belongs to this file */
    if (has > t->file->size || t->file->kind == HUB_SUM_NONE) return start_over(r, t);
    return 0;
}

/* The lock is held: see what is there. */
static int begin(struct run *r, struct transfer *t) {
    t->row = (struct progress_row){.name = t->file->name, .size = t->file->size, .start = clock_ns()};
    t->elsewhere = false;
    if (whole_there(t) && (t->named_by_sum || t->file->kind == HUB_SUM_NONE)) {
        counted(r, t, size_on_disk(t->paths.whole));
        done(r, t);
        return 0;
    }
    t->state = T_READING;
    t->row.note = "checking what is there";
    t->reading_whole = whole_there(t);
    if (!t->reading_whole) return open_part(r, t);
    t->fd = open(t->paths.whole, O_RDONLY | O_CLOEXEC);
    if (t->fd < 0) return disk_failure(t, t->paths.whole, errno, r->e);
    digest_init(&t->digest, t->file->kind, t->file->size);
    return 0;
}

static int start_request(struct run *r, struct transfer *t);
static int finish(struct run *r, struct transfer *t);

/* One piece of what is there into the checksum. */
static int read_piece(struct run *r, struct transfer *t) {
    ssize_t n = pread(t->fd, r->piece, PIECE, (off_t)t->at);
    if (n < 0 && errno == EINTR) return 0;
    if (n < 0)
        return err_machine(r->e, "%s cannot be read: %s", t->reading_whole ? t->paths.whole : t->paths.part,
                           strerror(errno));
    if (n > 0 && t->at + (size_t)n <= t->file->size) {
        digest_add(&t->digest, r->piece, (size_t)n);
        counted(r, t, t->at + (size_t)n);
        return 0;
    }
    t->row.first = t->flushed = t->at;
    t->row.start = clock_ns();
    t->row.note = NULL;
    if (t->at == t->file->size || t->reading_whole) return finish(r, t);
    return start_request(r, t);
}

/* ---- one file: what comes ---- */

static int write_all(struct transfer *t, const char *p, size_t n) {
    for (size_t w = 0; w < n;) {
        ssize_t k = pwrite(t->fd, p + w, n - w, (off_t)(t->at + w));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return t->disk_error = k < 0 ? errno : ENOSPC;
        w += (size_t)k;
    }
    return 0;
}

/* Have the disk write while more comes; else gigabytes would wait for the one fdatasync at the end, and all files with
 * them. */
static void flush_behind(struct transfer *t) {
    if (t->at - t->flushed < FLUSH_BYTES) return;
    sync_file_range(t->fd, (off_t)t->flushed, (off_t)(t->at - t->flushed),
                    SYNC_FILE_RANGE_WRITE); /* only a hint: its failure is none */
    t->flushed = t->at;
}

/* The first bytes of an answer: does it go on where we are, or begin again? */
static int on_begin(struct transfer *t) {
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &t->answer.status);
    t->begun = true;
    const struct hub_answer *a = &t->answer;
    size_t size = a->status == 200 ? a->length : a->status == 206 ? a->range_total : SIZE_MAX;
    if (size != SIZE_MAX && t->file->size != SIZE_MAX && size != t->file->size)
        t->other_size = size; /* another file, or a page of a proxy */
    else if (a->status == 206 && a->range_start != t->at)
        t->bad_range = true;
    else if (a->status == 200 && t->at && start_over(t->run, t))
        t->disk_error = EIO;
    return t->other_size != SIZE_MAX || t->bad_range || t->disk_error ? -1 : 0;
}

/* Gives libcurl less than it brought to end the transfer; finished() sees why. */
static size_t on_bytes(char *p, size_t size, size_t n, void *arg) {
    struct transfer *t = arg;
    n *= size;
    if (!t->begun && on_begin(t)) return 0;
    if (t->answer.status != 200 && t->answer.status != 206) {
        buf_add(&t->body, p, n); /* too much of it is dropped */
        return n;
    }
    if (t->file->size != SIZE_MAX && n > t->file->size - t->at) {
        t->other_size = t->at + n;
        return 0;
    }
    if (write_all(t, p, n)) return 0;
    digest_add(&t->digest, p, n);
    counted(t->run, t, t->at + n);
    flush_behind(t);
    t->run->p->arrived += n;
    return n;
}

static int start_request(struct run *r, struct transfer *t) {
    char range[32];
    buf_reset(&t->body);
    t->begun = t->bad_range = false;
    t->other_size = SIZE_MAX;
    t->easy = hub_easy(r->c, t->url, &t->answer);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, (long)READ_BYTES);
    snprintf(range, sizeof range, "%zu-", t->at);
    if (t->at) curl_easy_setopt(t->easy, CURLOPT_RANGE, range);
    if (curl_multi_add_handle(r->multi, t->easy)) BUG("curl_multi_add_handle");
    t->state = T_RUNNING;
    t->row.note = NULL;
    return 0;
}

/* ---- one file: its end ---- */

static int rename_whole(struct run *r, struct transfer *t) {
    if (fdatasync(t->fd)) return disk_failure(t, t->paths.part, errno, r->e);
    if (!t->hold && rename(t->paths.part, t->paths.whole))
        return err_machine(r->e, "%s cannot become %s: %s", t->paths.part, t->paths.whole, strerror(errno));
    return 0;
}

static void tell_done(struct run *r, const struct transfer *t) {
    char size[24], time[24], rate[24];
    double s = (double)(clock_ns() - t->row.start) / 1e9 + 1e-6;
    size_t came = t->at - t->row.first;
    if (r->p->terminal || !came) return;
    log_line(came < TOLD_BYTES ? LOG_DEBUG : LOG_INFO, "downloaded %s: %s in %s, %s/s", t->file->name,
             size_words(size, (double)came), time_words(time, s), size_words(rate, (double)came / s));
}

/* All bytes are here. */
static int finish(struct run *r, struct transfer *t) {
    char sum[65];
    digest_end(&t->digest, sum);
    bool right = t->file->kind == HUB_SUM_NONE || !strcmp(sum, t->file->sum);
    if (right && t->reading_whole) {
        done(r, t);
        return 0;
    }
    if (right) {
        if (rename_whole(r, t)) return -1;
        tell_done(r, t);
        done(r, t);
        return 0;
    }
    if (t->reading_whole) { /* an older version of the file */
        close_fd(&t->fd);
        counted(r, t, 0);
        t->reading_whole = false;
        t->state = T_READING;
        return open_part(r, t);
    }
    if (++t->bad_sums >= BAD_SUMS_MAX) {
        unlink(t->paths.part);
        return err_machine(r->e,
                           "%s arrived %d times with a wrong checksum (%.16s... instead of %.16s...): nothing of it is "
                           "kept; the hub, or "
                           "something between it and here, sends other bytes than it says",
                           t->file->name, t->bad_sums, sum, t->file->sum);
    }
    progress_clear(r->p);
    log_warning("%s has a wrong checksum; it is downloaded again from its beginning", t->file->name);
    if (start_over(r, t)) return -1;
    return start_request(r, t);
}

static int pause_until(struct run *r, struct transfer *t, int64_t wait) {
    t->state = T_PAUSED;
    t->next = clock_ns() + (uint64_t)wait * 1000000;
    t->row.note = "waiting to try again";
    if (wait < TELL_MS) return 0;
    progress_clear(r->p);
    log_warning("waiting %.1f s: %s", (double)wait / 1000, r->e->text);
    return 0;
}

/* libcurl is through with a request. */
static int finished(struct run *r, struct transfer *t, CURLcode rc) {
    hub_answer_finish(t->easy, &t->answer);
    curl_multi_remove_handle(r->multi, t->easy);
    curl_easy_cleanup(t->easy);
    t->easy = NULL;
    struct hub_answer *a = &t->answer;
    if (t->disk_error) return disk_failure(t, t->paths.part, t->disk_error, r->e);
    bool good = a->status == 200 || a->status == 206, size_known = t->file->size != SIZE_MAX,
         other = t->other_size != SIZE_MAX;
    if (t->bad_range || (!rc && a->status == 416 && a->range_total != t->at)) {
        if (start_over(r, t)) return -1; /* it does not go on from here; from the beginning, then */
        rc = CURLE_WEIRD_SERVER_REPLY;
    }
    if (other) rc = CURLE_WEIRD_SERVER_REPLY;
    if (!rc && ((good && (!size_known || t->at == t->file->size)) || a->status == 416)) return finish(r, t);
    if (!rc && good) rc = CURLE_PARTIAL_FILE; /* it ended early, in good form */
    if (t->at >= t->at_retry + PROGRESS_BYTES) t->retry.tries = 0;
    t->at_retry = t->at;
    int64_t wait = hub_retry_wait(r->c, &t->retry, rc, a);
    if (other)
        err_machine(r->e,
                    "%s sends %zu bytes or more for %s, which has %zu according to the hub's listing; is there "
                    "something between here "
                    "and the hub that answers in its place?",
                    a->host, t->other_size, t->file->name, t->file->size);
    else
        hub_failure(r->c, rc, a, t->file->name, &t->body, r->e);
    return wait < 0 ? -1 : pause_until(r, t, wait);
}

/* ---- all of them ---- */

static int busy(const struct run *r) {
    int n = 0;
    for (size_t i = 0; i < r->n; i++) n += r->v[i].state != T_WAITING && r->v[i].state != T_DONE;
    return n;
}

/* Give free places to files that wait, passing over those that another process has. */
static int fill(struct run *r) {
    int free_places = TRANSFERS_AT_ONCE - busy(r);
    bool try_locks = clock_ns() - r->locks_tried > LOCK_NS;
    if (try_locks) r->locks_tried = clock_ns();
    for (size_t i = 0; i < r->n && free_places > 0; i++) {
        struct transfer *t = &r->v[i];
        if (t->state != T_WAITING || (t->elsewhere && !try_locks)) continue;
        int got = take_lock(t, r->e);
        if (got < 0 || (got && begin(r, t))) return -1;
        if (!got && !t->elsewhere) {
            progress_clear(r->p);
            log_info("another process downloads %s; waiting for it", t->file->name);
        }
        t->elsewhere = !got;
        free_places -= got && t->state != T_DONE;
    }
    return 0;
}

/* What of the files needs no socket: reading, and pauses that are over. */
static int turn(struct run *r, bool *reading) {
    *reading = false;
    for (size_t i = 0; i < r->n; i++) {
        struct transfer *t = &r->v[i];
        if (t->state == T_PAUSED && clock_ns() >= t->next && start_request(r, t)) return -1;
        if (t->state == T_READING && read_piece(r, t)) return -1;
        *reading |= t->state == T_READING;
    }
    return 0;
}

static int reap(struct run *r) {
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(r->multi, &left))) {
        struct transfer *t;
        if (m->msg != CURLMSG_DONE) continue;
        CURLcode rc = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        if (finished(r, t, rc)) return -1;
    }
    return 0;
}

static void show(struct run *r) {
    struct progress_row rows[PROGRESS_ROWS];
    int n = 0;
    for (size_t i = 0; i < r->n && n < PROGRESS_ROWS; i++) {
        struct transfer *t = &r->v[i];
        if (t->state == T_WAITING && t->elsewhere) {
            size_t at = size_on_disk(t->paths.part);
            rows[n++] = (struct progress_row){.name = t->file->name,
                                              .note = "by another process",
                                              .at = at == SIZE_MAX ? 0 : at,
                                              .size = t->file->size};
        } else if (t->state != T_WAITING && t->state != T_DONE)
            rows[n++] = t->row;
    }
    progress_show(r->p, rows, n);
}

static bool all_done(const struct run *r) {
    for (size_t i = 0; i < r->n; i++)
        if (r->v[i].state != T_DONE) return false;
    return true;
}

static int run_all(struct run *r) {
    while (!all_done(r)) {
        bool reading;
        int running;
        if (fill(r) || turn(r, &reading)) return -1;
        if (curl_multi_perform(r->multi, &running))
            return err_machine(r->e, "libcurl fails in the middle of a download");
        if (reap(r)) return -1;
        show(r);
        if (!reading && !all_done(r)) curl_multi_poll(r->multi, NULL, 0, TURN_MS, NULL);
    }
    return 0;
}

int transfers_run(struct hub_client *c, struct transfer *v, size_t n, struct progress *p, struct err *e) {
    struct run r = {.c = c, .v = v, .n = n, .p = p, .e = e, .multi = curl_multi_init(), .piece = mem_alloc(PIECE)};
    if (!r.multi) BUG("curl_multi_init");
    for (size_t i = 0; i < n; i++) v[i].run = &r;
    int rc = run_all(&r);
    progress_clear(p);
    for (size_t i = 0; i < n; i++) {
        struct transfer *t = &v[i];
        if (t->easy) curl_multi_remove_handle(r.multi, t->easy), curl_easy_cleanup(t->easy);
        t->easy = NULL;
        t->run = NULL;
        close_fd(&t->fd);
        close_fd(&t->lock);
    }
    curl_multi_cleanup(r.multi);
    free(r.piece);
    return rc;
}
