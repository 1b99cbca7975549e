/* log.c: the style, set once at start, and each thread's rank are the only state. A line that does not fit is cut; what
 * cannot be written is lost: there is nowhere left to say it. */
#include "base/log.h"

#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048 };

static struct log_style style = {.lowest = LOG_INFO};
static _Thread_local int rank = -1;
static const char *const names[] = {"DEBUG", "INFO", "WARNING", "ERROR"};

void log_set_style(const struct log_style *s) { style = *s; }
void log_set_rank(int r) { rank = r; }
void log_quiet(enum log_level lowest) {
    if (style.lowest > LOG_DEBUG && style.lowest < lowest) style.lowest = lowest;
}

bool log_on_terminal(void) { return !style.json && isatty(STDERR_FILENO); }

static void add_time(struct buf *b) {
    struct timespec now;
    struct tm t;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &t);
    buf_addf(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min,
             t.tm_sec, (int)(now.tv_nsec / 1000000));
}

static void add_text(struct buf *b, enum log_level level, char *words) {
    for (char *p = words; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    if (style.time) {
        add_time(b);
        buf_addc(b, ' ');
    }
    if (style.rank && rank >= 0) buf_addf(b, "[rank %d] ", rank);
    buf_addf(b, "%s: %s", names[level], words);
}

static void add_json(struct buf *b, enum log_level level, const char *words) {
    buf_adds(b, "{\"time\":\"");
    add_time(b);
    buf_addf(b, "\",\"level\":\"%s\"", names[level]);
    if (rank >= 0) buf_addf(b, ",\"rank\":%d", rank);
    buf_adds(b, ",\"message\":");
    buf_add_json(b, words, strlen(words));
    buf_addc(b, '}');
}

void log_line(enum log_level level, const char *fmt, ...) {
    if (level < style.lowest) return;
    char words[LINE_MAX_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    struct buf b;
    buf_init(&b, 8 * LINE_MAX_BYTES); /* every byte escaped, and the fields around them */
    if (style.json)
        add_json(&b, level, words);
    else
        add_text(&b, level, words);
    buf_addc(&b, '\n');
    ssize_t n = write(STDERR_FILENO, b.data, b.len);
    (void)n;
    buf_release(&b);
}
