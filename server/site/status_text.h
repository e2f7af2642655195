/*
 * Values as the status pages write them. Texts come from outside: each function makes any bytes harmless where it puts
 * them. Pure.
 */
#ifndef GATEHOUSE_SITE_STATUS_TEXT_H
#define GATEHOUSE_SITE_STATUS_TEXT_H

#include <stdint.h>

#include "base/buffer.h"

/* A JSON string with its quotes. */
void text_json(struct buffer *to, const char *text);

/* Text of an HTML element, or of an attribute's value in quotes. */
void text_html(struct buffer *to, const char *text);

/* The value of a label of OpenMetrics, without its quotes. */
void text_label(struct buffer *to, const char *text);

/* Microseconds as milliseconds, "12.345"; as seconds, "0.012345". */
void text_ms(struct buffer *to, uint64_t us);
void text_seconds(struct buffer *to, uint64_t us);

/* For people: "850 µs", "12 ms", "3.4 s", "5 min", "2 h", "3 d"; "512 B", "18 KB", "40 MB". */
void text_duration(struct buffer *to, uint64_t us);
void text_bytes(struct buffer *to, uint64_t bytes);

#endif
