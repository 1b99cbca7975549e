/* unicode.c: see unicode.h. Constant data only, any thread. */
#include "text/unicode.h"

#include "base/utf8.h"

#include <string.h>

uint32_t uc_lower(uint32_t c) {
    if (c == 0x130) return 'i';
    size_t a = 0, b = uc_lower_n;
    while (a < b) {
        size_t m = (a + b) / 2;
        if (uc_lower_runs[m].last < c)
            a = m + 1;
        else
            b = m;
    }
    if (a == uc_lower_n || c < uc_lower_runs[a].first) return c;
    const struct uc_lower_run *r = &uc_lower_runs[a];
    return (c - r->first) % r->step ? c : c + (uint32_t)r->delta;
}

uint32_t uc_older(uint32_t c) {
    size_t a = 0, b = uc_newer_n;
    while (a < b) {
        size_t m = (a + b) / 2;
        if (uc_newer_runs[m].last < c)
            a = m + 1;
        else
            b = m;
    }
    return a < uc_newer_n && c >= uc_newer_runs[a].first ? uc_newer_runs[a].older : c;
}

size_t uc_ascii_run(const char *s, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t x;
        memcpy(&x, s + i, 8);
        if (x & 0x8080808080808080u) break;
    }
    while (i < n && (unsigned char)s[i] < 0x80) i++;
    return i;
}

bool uc_valid(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        if ((unsigned char)s[i] < 0x80) {
            i += uc_ascii_run(s + i, n - i);
            continue;
        }
        uint32_t c;
        size_t w = utf8_get(s + i, n - i, &c);
        if (!w) return false;
        i += w;
    }
    return true;
}
