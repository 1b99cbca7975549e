/* progress.c: see progress.h. The downloading thread owns it. Says nothing more often than it must. */
#include "hub/progress.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { REDRAW_NS = 100000000, NARROW = 60, FIGURES = 52 /* columns */ };
static const uint64_t line_ns = 10000000000u, sample_ns = 500000000u;

const char *size_words(char out[24], double bytes) {
    static const char *const unit[] = {"bytes", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 999.5 && u < 4) bytes /= 1000, u++;
    snprintf(out, 24,
             u == 0          ? "%.0f %s"
             : bytes < 9.995 ? "%.2f %s"
             : bytes < 99.95 ? "%.1f %s"
                             : "%.0f %s",
             bytes, unit[u]);
    return out;
}

const char *time_words(char out[24], double s) {
    if (!(s < 360000))
        snprintf(out, 24, "days");
    else if (s < 9.95)
        snprintf(out, 24, "%.1f s", s);
    else if (s < 100)
        snprintf(out, 24, "%.0f s", s);
    else if (s < 6000)
        snprintf(out, 24, "%.0f min", s / 60);
    else
        snprintf(out, 24, "%.1f h", s / 3600);
    return out;
}

void progress_init(struct progress *p, const char *name) {
    *p = (struct progress){.name = name, .terminal = log_on_terminal(), .start = clock_ns()};
    p->shown = p->start;
}

/* Bytes a second over the last seconds. */
static double speed(struct progress *p, uint64_t now) {
    unsigned last = (p->n_past - 1) % PROGRESS_PAST;
    if (!p->n_past || now - p->past[last].at >= sample_ns) {
        last = p->n_past++ % PROGRESS_PAST;
        p->past[last].at = now;
        p->past[last].arrived = p->arrived;
    }
    unsigned first = p->n_past > PROGRESS_PAST ? p->n_past % PROGRESS_PAST : 0;
    uint64_t past = now - p->past[first].at;
    return past ? (double)(p->arrived - p->past[first].arrived) / ((double)past / 1e9) : 0;
}

/* One line's words; the name takes `room` columns, 0: as many as it has. */
static void put(struct buf *b, const char *name, int room, double at, double size, double rate, const char *note) {
    char has[24], all[24], a_second[24], left[24];
    buf_addf(b, "%-*.*s  ", room, room ? room : 300, name);
    if (size > 0)
        buf_addf(b, "%3.0f %%  %s of %s", 100 * at / size, size_words(has, at), size_words(all, size));
    else
        buf_adds(b, size_words(has, at));
    if (note)
        buf_addf(b, "  %s", note);
    else if (rate > 0)
        buf_addf(b, "  %s/s", size_words(a_second, rate));
    if (!note && rate > 0 && size > 0) buf_addf(b, "  %s left", time_words(left, (size - at) / rate));
}

static size_t width(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > NARROW ? w.ws_col : 80;
}

static void add_line(struct buf *out, struct buf *line, size_t columns) {
    buf_add(out, buf_str(line), line->len < columns ? line->len : columns - 1); /* names are ASCII */
    buf_adds(out, "\033[K\n");
    buf_reset(line);
}

static void draw(struct progress *p, const struct progress_row *rows, int n, double rate, uint64_t now) {
    struct buf out, line;
    char name[60];
    size_t columns = width();
    int room = 0, most = (int)columns - FIGURES;
    buf_init(&out, 1 << 16);
    buf_init(&line, 4096);
    for (int i = 0; i < n; i++)
        if ((int)strlen(rows[i].name) > room) room = (int)strlen(rows[i].name);
    room = room > most ? most : room < 20 ? 20 : room;
    if (p->drawn) buf_addf(&out, "\033[%dA", p->drawn);
    for (int i = 0; i < n; i++) {
        double s = (double)(now - rows[i].start) / 1e9 + 1e-3;
        put(&line, rows[i].name, room, (double)rows[i].at, rows[i].size == SIZE_MAX ? 0 : (double)rows[i].size,
            (double)(rows[i].at - rows[i].first) / s, rows[i].note);
        add_line(&out, &line, columns);
    }
    snprintf(name, sizeof name, "%zu of %zu files", p->files_done, p->files);
    put(&line, name, room, (double)p->at, (double)p->size, rate, NULL);
    add_line(&out, &line, columns);
    buf_adds(&out, "\033[J");
    if (write(STDERR_FILENO, buf_str(&out), out.len) < 0) p->terminal = false; /* nobody looks any more */
    p->drawn = n + 1;
    buf_release(&line);
    buf_release(&out);
}

void progress_show(struct progress *p, const struct progress_row *rows, int n) {
    uint64_t now = clock_ns();
    if (now - p->shown < (p->terminal ? REDRAW_NS : line_ns)) return;
    double rate = speed(p, now);
    if (p->terminal) {
        draw(p, rows, n, rate, now);
    } else {
        struct buf line;
        char name[300];
        buf_init(&line, 1000);
        snprintf(name, sizeof name, "%s: %zu of %zu files", p->name, p->files_done, p->files);
        put(&line, name, 0, (double)p->at, (double)p->size, (double)p->arrived / ((double)(now - p->start) / 1e9),
            NULL);
        log_info("downloading %s", buf_str(&line));
        buf_release(&line);
    }
    p->shown = now;
}

void progress_clear(struct progress *p) {
    if (!p->drawn) return;
    fprintf(stderr, "\033[%dA\033[J", p->drawn);
    p->drawn = 0;
    p->shown = 0;
}
