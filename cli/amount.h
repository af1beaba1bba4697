/* Bytes and times as people read them: "1.50 GiB", "12.3 s". */
#ifndef CLI_AMOUNT_H
#define CLI_AMOUNT_H

#include <stdint.h>

enum { AMOUNT_TEXT = 32 };

/* Three significant digits and a binary unit. */
void amount_bytes(uint64_t bytes, char text[AMOUNT_TEXT]);

/* Milliseconds below 10 s, then seconds, minutes, hours. */
void amount_ms(uint64_t ms, char text[AMOUNT_TEXT]);

/* The same for a line with little room: "1.50G", "300ms", "12.3s". */
void amount_bytes_short(uint64_t bytes, char text[AMOUNT_TEXT]);
void amount_ms_short(uint64_t ms, char text[AMOUNT_TEXT]);

#endif
