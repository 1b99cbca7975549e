/* plot.c: see plot.h. No state. */
#include "sim/plot.h"

#include <math.h>
#include <stddef.h>

enum { WIDTH = 960, LEFT = 80, RIGHT = 20, TOP = 56, PANEL = 150, GAP = 46, N_PANELS = 3 };
#define PLOT_WIDTH (WIDTH - LEFT - RIGHT)
#define HEIGHT (TOP + N_PANELS * (PANEL + GAP) + 12)

struct line {
    size_t at; /* of the value in struct sim_moment */
    const char *color, *label;
    bool fill;
};

struct panel {
    const char *title;
    struct line line[2];
    double most; /* 0: from the data */
};

static double value(const struct sim_moment *m, size_t at) { return *(const double *)((const char *)m + at); }

static double largest(const struct sim_report *r, const struct panel *p) {
    double most = p->most;
    for (int i = 0; i < 2 && p->line[i].label; i++)
        for (int32_t k = 0; k < r->n_moments; k++) most = fmax(most, value(&r->moment[k], p->line[i].at));
    return most > 0 ? most : 1;
}

/* 1, 2 or 5 times a power of ten, so that about n of them make up x. */
static double tick(double x, double n) {
    double raw = x / n, power = pow(10, floor(log10(raw)));
    return raw <= power ? power : raw <= 2 * power ? 2 * power : raw <= 5 * power ? 5 * power : 10 * power;
}

static void text(FILE *to, double x, double y, const char *anchor, int size, const char *s) {
    fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">", x, y, anchor, size);
    for (; *s; s++) {
        if (*s == '<')
            fputs("&lt;", to);
        else if (*s == '&')
            fputs("&amp;", to);
        else
            fputc(*s, to);
    }
    fputs("</text>\n", to);
}

static void number(FILE *to, double x, double y, const char *anchor, double v) {
    char s[32];
    if (v >= 1e6)
        snprintf(s, sizeof s, "%gM", v / 1e6);
    else if (v >= 1e4)
        snprintf(s, sizeof s, "%gk", v / 1e3);
    else
        snprintf(s, sizeof s, "%g", v);
    text(to, x, y, anchor, 11, s);
}

static void grid(FILE *to, double top, double most, double seconds, bool labels_below) {
    for (double v = 0, step = tick(most, 4); v <= most * 1.0001; v += step) {
        double y = top + PANEL - v / most * PANEL;
        fprintf(to, "<path d=\"M%d %.1fH%d\" stroke=\"#ccc\" stroke-width=\"%g\"/>\n", LEFT, y, WIDTH - RIGHT,
                v > 0 ? 0.6 : 1.2);
        number(to, LEFT - 8, y + 4, "end", v);
    }
    for (double v = 0, step = tick(seconds, 8); v <= seconds * 1.0001; v += step) {
        double x = LEFT + v / seconds * PLOT_WIDTH;
        fprintf(to, "<path d=\"M%.1f %.1fv5\" stroke=\"#999\"/>\n", x, top + PANEL);
        number(to, x, top + PANEL + 18, "middle", v);
    }
    if (labels_below) text(to, WIDTH - RIGHT, top + PANEL + 34, "end", 11, "seconds");
}

static void draw(FILE *to, const struct sim_report *r, const struct line *l, double top, double most, double seconds) {
    fprintf(to,
            "<path fill=\"%s\" fill-opacity=\"0.25\" stroke=\"%s\" stroke-width=\"1.4\" stroke-linejoin=\"round\" d=\"",
            l->fill ? l->color : "none", l->color);
    if (l->fill) fprintf(to, "M%d %.1f", LEFT, top + PANEL);
    double x = LEFT;
    for (int32_t k = 0; k < r->n_moments; k++) {
        x = LEFT + fmin(r->moment[k].at / seconds, 1) * PLOT_WIDTH;
        fprintf(to, "%c%.1f %.1f", k || l->fill ? 'L' : 'M', x,
                top + PANEL - value(&r->moment[k], l->at) / most * PANEL);
    }
    if (l->fill) fprintf(to, "L%.1f %.1fZ", x, top + PANEL);
    fputs("\"/>\n", to);
}

static void draw_panel(FILE *to, const struct sim_report *r, const struct panel *p, double top, bool last) {
    double most = largest(r, p), seconds = r->seconds > 0 ? r->seconds : 1, x = WIDTH - RIGHT;
    text(to, LEFT, top - 8, "start", 13, p->title);
    grid(to, top, most, seconds, last);
    for (int i = 0; i < 2 && p->line[i].label; i++) {
        draw(to, r, &p->line[i], top, most, seconds);
        if (!p->line[1].label) continue;
        fprintf(to, "<rect x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"4\" fill=\"%s\"/>\n", x - 150 + 80 * i, top - 14,
                p->line[i].color);
        text(to, x - 134 + 80 * i, top - 8, "start", 11, p->line[i].label);
    }
}

void plot_svg(FILE *to, const struct sim_report *r, int32_t n_pages, const char *title) {
    const struct panel panels[N_PANELS] = {
        {"requests running", {{offsetof(struct sim_moment, running), "#1667b7", "running", true}}, 0},
        {"requests queued", {{offsetof(struct sim_moment, queued), "#c2571a", "queued", true}}, 0},
        {"KV pages",
         {{offsetof(struct sim_moment, cached), "#6a9a2d", "in cache", true},
          {offsetof(struct sim_moment, used), "#1667b7", "in use", false}},
         n_pages - 1},
    };
    fprintf(
        to,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" fill=\"#333\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
        WIDTH, HEIGHT);
    text(to, LEFT, 22, "start", 15, title);
    for (int i = 0; i < N_PANELS; i++) draw_panel(to, r, &panels[i], TOP + i * (PANEL + GAP), i == N_PANELS - 1);
    fputs("</svg>\n", to);
}
