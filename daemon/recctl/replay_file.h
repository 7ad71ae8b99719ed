/*
 * replay_file.h: one history file, plain, gzip or zstd (told by its first bytes, not by its name), line by line.
 */
#ifndef DAEMON_RECCTL_REPLAY_FILE_H
#define DAEMON_RECCTL_REPLAY_FILE_H

#include <stddef.h>
#include <stdint.h>

struct replay_file;

struct replay_line {
	const char *text; /* without newline and CR; valid until the next call; DECODE_PADDING readable bytes behind it; NULL: too long to be held */
	size_t len;       /* of text, or of the whole line when it is too long */
	int64_t offset;   /* of its first byte in the content (of a compressed file: after decompression) */
	uint64_t number;  /* 1 for the first line */
};

/*
 * Opens a file; lines above line_bytes_max are told, not held. *ret_file is owned by the caller (replay_file_close). 0; -errno with errstr naming the file.
 * Memory: 128 KiB and what the decompressor needs (zstd: its window), more only for longer lines.
 */
int replay_file_open(const char *path, size_t line_bytes_max, struct replay_file **ret_file, char *errstr, size_t errstr_size);
void replay_file_close(struct replay_file *file);

/*
 * The next line. The last one may lack its newline. 1: a line; 0: the end; -EBADMSG: damaged or cut-off compressed data, errstr names the file, the byte in it
 * and the line; -errno of read; -ENOMEM. Lines before the damage have all been handed out.
 */
int replay_file_next(struct replay_file *file, struct replay_line *ret_line, char *errstr, size_t errstr_size);

/* Bytes of the file itself (compressed) that have been read. */
uint64_t replay_file_read_bytes(const struct replay_file *file);

/* Hash of the first 4096 bytes of the content (all when shorter): the same whether the file is compressed or not, and while it grows past that. 0 or -errno. */
#define REPLAY_CONTENT_ID_BYTES 4096u
int replay_file_content_id(const char *path, uint64_t *ret_id, char *errstr, size_t errstr_size);

/* FNV-1a, 64 bits: begin with REPLAY_HASH_BEGIN, go on with what was returned. */
#define REPLAY_HASH_BEGIN UINT64_C(0xcbf29ce484222325)
uint64_t replay_hash(uint64_t hash, const void *bytes, size_t len);

#endif
