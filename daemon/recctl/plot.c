/*
 * plot.c: a small SVG writer (plot.h). Main thread of recctl; owns the file while it is written.
 *
 * All lengths are in SVG user units (pixels at 100 %). A panel is a box of PLOT_W x PLOT_H with margins for its texts; x runs over 1..n, y over the ticks that cover
 * the values.
 */
#include "daemon/recctl/plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PANEL_W 460.0
#define PANEL_H 320.0
#define TOP 34.0 /* title of the whole */
#define LEFT 66.0
#define RIGHT 18.0
#define ABOVE 34.0
#define BELOW 46.0
#define PLOT_W (PANEL_W - LEFT - RIGHT)
#define PLOT_H (PANEL_H - ABOVE - BELOW)
#define POINTS_MAX 60 /* above that the points would hide the line */

void plot_ticks(double low, double high, double *ret_first, double *ret_step, int *ret_n)
{
	if (high - low <= fmax(fabs(low), fabs(high)) * 1e-9) {
		double room = low != 0 ? fabs(low) * 0.1 : 1;

		low -= room;
		high += room;
	}
	double raw = (high - low) / 5, power = pow(10, floor(log10(raw))), step = power;

	if (raw / power > 5)
		step = 10 * power;
	else if (raw / power > 2)
		step = 5 * power;
	else if (raw / power > 1)
		step = 2 * power;
	double first = floor(low / step + 1e-9) * step;
	int n = (int)(ceil((high - first) / step - 1e-9)) + 1;

	*ret_first = first;
	*ret_step = step;
	*ret_n = n < 2 ? 2 : n;
}

/* Text with what XML wants escaped; control characters become '?'. */
static void put_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		default:
			fputc((unsigned char)*text < ' ' || *text == 127 ? '?' : *text, out);
		}
	}
}

static void put_label(FILE *out, double x, double y, const char *anchor, const char *extra, const char *text)
{
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, extra);
	put_text(out, text);
	fputs("</text>\n", out);
}

/* A panel's scale. */
struct scale {
	double left, top;          /* of the plot area */
	double y_first, y_step;
	int y_n;
	size_t n;
};

static double x_at(const struct scale *s, double x)
{
	return s->left + (s->n > 1 ? (x - 1) / (double)(s->n - 1) * PLOT_W : PLOT_W / 2);
}

static double y_at(const struct scale *s, double y)
{
	return s->top + PLOT_H - (y - s->y_first) / (s->y_step * (s->y_n - 1)) * PLOT_H;
}

static int find_scale(const struct plot_panel *panel, size_t index, struct scale *ret_scale)
{
	double low = INFINITY, high = -INFINITY;

	for (size_t i = 0; i < panel->n; i++) {
		if (isfinite(panel->values[i])) {
			low = fmin(low, panel->values[i]);
			high = fmax(high, panel->values[i]);
		}
	}
	*ret_scale = (struct scale){ .left = (double)index * PANEL_W + LEFT, .top = TOP + ABOVE, .n = panel->n };
	if (!(low <= high))
		return 0;
	plot_ticks(low, high, &ret_scale->y_first, &ret_scale->y_step, &ret_scale->y_n);
	return 1;
}

static void put_axes(FILE *out, const struct plot_panel *panel, const struct scale *s)
{
	double first, step;
	char text[64];
	int n;

	for (int i = 0; i < s->y_n; i++) {
		double value = s->y_first + i * s->y_step, y = y_at(s, value);

		fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", s->left, y, s->left + PLOT_W, y);
		snprintf(text, sizeof(text), "%.6g", fabs(value) < s->y_step * 1e-6 ? 0 : value);
		put_label(out, s->left - 8, y + 4, "end", "", text);
	}
	plot_ticks(1, panel->n > 1 ? (double)panel->n : 2, &first, &step, &n);
	size_t x_step = step < 1 ? 1 : (size_t)step;
	for (size_t x = (size_t)first; x <= panel->n; x += x_step) {
		double tick = x < 1 ? 1 : (double)x; /* the first one is 1, not 0 */

		fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#888\"/>\n", x_at(s, tick), s->top + PLOT_H, x_at(s, tick),
		        s->top + PLOT_H + 5);
		snprintf(text, sizeof(text), "%.0f", tick);
		put_label(out, x_at(s, tick), s->top + PLOT_H + 19, "middle", "", text);
	}
	fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" stroke=\"#888\"/>\n", s->left, s->top, PLOT_W, PLOT_H);
	put_label(out, s->left + PLOT_W / 2, s->top + PLOT_H + 38, "middle", "", panel->x_label);
}

/* The curve, broken where there is no value, and its points with what they say when pointed at. */
static void put_curve(FILE *out, const struct plot_panel *panel, const struct scale *s)
{
	int open = 0;

	for (size_t i = 0; i < panel->n; i++) {
		int there = isfinite(panel->values[i]);

		if (there && !open)
			fputs("<polyline fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\" points=\"", out);
		if (there)
			fprintf(out, "%.2f,%.2f ", x_at(s, (double)i + 1), y_at(s, panel->values[i]));
		if (open && !there)
			fputs("\"/>\n", out);
		open = there;
	}
	if (open)
		fputs("\"/>\n", out);
	for (size_t i = 0; i < panel->n; i++) {
		int marked = panel->mark == i + 1;

		if (!isfinite(panel->values[i]) || (panel->n > POINTS_MAX && !marked))
			continue;
		fprintf(out, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"%s\" fill=\"%s\"><title>%zu: %.6g</title></circle>\n", x_at(s, (double)i + 1),
		        y_at(s, panel->values[i]), marked ? "5" : "3", marked ? "#c0392b" : "#1f5fa8", i + 1, panel->values[i]);
		if (marked && panel->mark_label) {
			int right = i * 2 < panel->n;
			double y = y_at(s, panel->values[i]);

			put_label(out, x_at(s, (double)i + 1) + (right ? 8 : -8), y < s->top + 24 ? y + 20 : y - 9, right ? "start" : "end", " fill=\"#c0392b\"",
			          panel->mark_label);
		}
	}
}

static void put_all(FILE *out, const char *title, const struct plot_panel *panels, size_t n_panels)
{
	double width = PANEL_W * (double)n_panels, height = PANEL_H + TOP;

	fprintf(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
	             "font-family=\"sans-serif\" font-size=\"12\">\n<title>", width, height, width, height);
	put_text(out, title);
	fprintf(out, "</title>\n<rect width=\"%.0f\" height=\"%.0f\" fill=\"white\"/>\n", width, height);
	put_label(out, width / 2, 22, "middle", " font-size=\"15\" font-weight=\"bold\"", title);
	for (size_t i = 0; i < n_panels; i++) {
		struct scale scale;

		if (find_scale(&panels[i], i, &scale)) {
			put_axes(out, &panels[i], &scale);
			put_curve(out, &panels[i], &scale);
		} else {
			put_label(out, scale.left + PLOT_W / 2, scale.top + PLOT_H / 2, "middle", "", "nothing measured");
		}
		put_label(out, scale.left + PLOT_W / 2, scale.top - 12, "middle", " font-size=\"13\"", panels[i].title);
	}
	fputs("</svg>\n", out);
}

/* The temporary file beside `path`, opened. NULL: *ret_rc is -errno, errstr says why. */
static FILE *open_temporary(const char *path, char *temporary, size_t size, int *ret_rc, char *errstr, size_t errstr_size)
{
	struct stat st;
	FILE *out = NULL;

	*ret_rc = 0;
	if (snprintf(temporary, size, "%s.%ld.tmp", path, (long)getpid()) >= (int)size)
		*ret_rc = -ENAMETOOLONG;
	else if (!stat(path, &st) && S_ISDIR(st.st_mode))
		*ret_rc = -EISDIR;
	else if (!(out = fopen(temporary, "we")))
		*ret_rc = -errno;
	if (*ret_rc)
		snprintf(errstr, errstr_size, "%s: open: %s", path, strerror(-*ret_rc));
	return out;
}

int plot_check(const char *path, char *errstr, size_t errstr_size)
{
	char temporary[4096];
	int rc;
	FILE *out = open_temporary(path, temporary, sizeof(temporary), &rc, errstr, errstr_size);

	if (!out)
		return rc;
	fclose(out);
	(void)unlink(temporary);
	return 0;
}

int plot_write(const char *path, const char *title, const struct plot_panel *panels, size_t n_panels, char *errstr, size_t errstr_size)
{
	char temporary[4096];
	const char *step = "write";
	int rc;
	FILE *out = open_temporary(path, temporary, sizeof(temporary), &rc, errstr, errstr_size);

	if (!out)
		return rc;
	put_all(out, title, panels, n_panels);
	if (fflush(out) || ferror(out))
		rc = errno ? -errno : -EIO;
	if (fclose(out) && !rc)
		rc = errno ? -errno : -EIO;
	if (!rc && rename(temporary, path)) {
		step = "rename";
		rc = -errno;
	}
	if (rc) {
		(void)unlink(temporary);
		snprintf(errstr, errstr_size, "%s: %s: %s", path, step, strerror(-rc));
	}
	return rc;
}
