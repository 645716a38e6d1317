/*
 * exerciser FOLDER OPERATIONS SEED ASK_AT WORDS
 *
 * Random operations on a few files of a file system, each mirrored in memory: what is read must be
 * what the mirror holds. Same seed, same operations. After ASK_AT operations it prints WORDS, so that
 * whoever watches can make trouble meanwhile. Ends with 0 when every byte was right, with 1 and a
 * sentence on standard error when one was not or an operation failed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { file_count = 4, file_bytes_max = 4 << 20, operation_bytes_max = 64 << 10, sector = 4096 };

/* Invariant: beyond `size` the mirror is zero, so that a file that grows grows by zeros. */
struct file {
	char path[4096];
	int cached;
	int direct;
	off_t size;
	unsigned char *mirror;
};

static struct file files[file_count];
/* Aligned, as O_DIRECT wants it. */
static unsigned char *buffer;
static uint64_t random_state;
static long operation_now;
static const char *doing = "opening";

static void fail(const struct file *file, const char *what)
{
	fprintf(stderr, "operation %ld, %s %s: %s\n", operation_now, doing, file->path, what);
	exit(1);
}

static void must(const struct file *file, int holds)
{
	if (!holds)
		fail(file, strerror(errno));
}

/* xorshift64*: small, and the same everywhere. */
static uint64_t next_random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dULL;
}

static off_t below(off_t limit)
{
	return (off_t)((next_random() >> 16) % (uint64_t)limit);
}

static void fill_random(unsigned char *out, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 8) {
		uint64_t word = next_random();
		memcpy(out + at, &word, bytes - at < 8 ? bytes - at : 8);
	}
}

static void compare(const struct file *file, const unsigned char *found, off_t from, off_t bytes)
{
	if (memcmp(found, file->mirror + from, (size_t)bytes) == 0)
		return;
	off_t at = 0;
	while (found[at] == file->mirror[from + at])
		at += 1;
	char what[160];
	snprintf(what, sizeof what, "byte %lld of %lld is %02x, should be %02x", (long long)(from + at),
		 (long long)file->size, found[at], file->mirror[from + at]);
	fail(file, what);
}

static void grown_to(struct file *file, off_t size)
{
	if (size > file->size)
		file->size = size;
}

/* A range that may reach beyond the end of the file, but not beyond the mirror. */
static off_t any_range(off_t *from, off_t unit)
{
	*from = below(file_bytes_max / unit) * unit;
	off_t bytes = (1 + below(operation_bytes_max / unit)) * unit;
	return *from + bytes > file_bytes_max ? file_bytes_max - *from : bytes;
}

static void write_some(struct file *file, int descriptor, off_t unit)
{
	off_t from, bytes = any_range(&from, unit);
	fill_random(buffer, (size_t)bytes);
	must(file, pwrite(descriptor, buffer, (size_t)bytes, from) == bytes);
	memcpy(file->mirror + from, buffer, (size_t)bytes);
	grown_to(file, from + bytes);
}

static void write_cached(struct file *file)
{
	write_some(file, file->cached, 1);
}

static void write_direct(struct file *file)
{
	write_some(file, file->direct, sector);
}

static void read_some(struct file *file, int descriptor, off_t unit)
{
	off_t from, wanted = any_range(&from, unit);
	off_t there = from >= file->size ? 0 : file->size - from;
	off_t bytes = wanted < there ? wanted : there;
	must(file, pread(descriptor, buffer, (size_t)wanted, from) == bytes);
	compare(file, buffer, from, bytes);
}

static void read_cached(struct file *file)
{
	read_some(file, file->cached, 1);
}

static void read_direct(struct file *file)
{
	read_some(file, file->direct, sector);
}

static void write_mapped(struct file *file)
{
	if (file->size == 0)
		return;
	unsigned char *map = mmap(NULL, (size_t)file->size, PROT_READ | PROT_WRITE, MAP_SHARED, file->cached, 0);
	must(file, map != MAP_FAILED);
	off_t from = below(file->size);
	off_t bytes = 1 + below(file->size - from < operation_bytes_max ? file->size - from : operation_bytes_max);
	fill_random(file->mirror + from, (size_t)bytes);
	memcpy(map + from, file->mirror + from, (size_t)bytes);
	must(file, munmap(map, (size_t)file->size) == 0);
}

static void truncate_somewhere(struct file *file)
{
	off_t size = below(file_bytes_max + 1);
	must(file, ftruncate(file->cached, size) == 0);
	if (size < file->size)
		memset(file->mirror + size, 0, (size_t)(file->size - size));
	file->size = size;
}

static void zero(struct file *file, int mode)
{
	off_t from, bytes = any_range(&from, 1);
	must(file, fallocate(file->cached, mode | FALLOC_FL_KEEP_SIZE, from, bytes) == 0);
	memset(file->mirror + from, 0, (size_t)bytes);
}

static void punch_hole(struct file *file)
{
	zero(file, FALLOC_FL_PUNCH_HOLE);
}

static void zero_range(struct file *file)
{
	zero(file, FALLOC_FL_ZERO_RANGE);
}

static void synchronise(struct file *file)
{
	must(file, fsync(file->cached) == 0);
}

/* Writes back and forgets, so that what is read comes from the disk. */
static void read_whole_from_disk(struct file *file)
{
	must(file, fsync(file->cached) == 0);
	must(file, posix_fadvise(file->cached, 0, 0, POSIX_FADV_DONTNEED) == 0);
	for (off_t from = 0; from < file->size; from += operation_bytes_max) {
		off_t left = file->size - from;
		off_t bytes = left < operation_bytes_max ? left : operation_bytes_max;
		must(file, pread(file->cached, buffer, (size_t)bytes, from) == bytes);
		compare(file, buffer, from, bytes);
	}
}

static void open_both(struct file *file)
{
	file->cached = open(file->path, O_RDWR | O_CREAT, 0600);
	file->direct = open(file->path, O_RDWR | O_DIRECT);
	must(file, file->cached >= 0 && file->direct >= 0);
}

static void close_and_rename(struct file *file)
{
	char name[sizeof file->path];
	memcpy(name, file->path, sizeof name);
	must(file, close(file->cached) == 0 && close(file->direct) == 0);
	name[strlen(name) - 1] ^= 'a' ^ 'b';
	must(file, rename(file->path, name) == 0);
	memcpy(file->path, name, sizeof name);
	open_both(file);
	must(file, lseek(file->cached, 0, SEEK_END) == file->size);
}

/* How often each operation comes, out of 100. */
static const struct {
	int share;
	const char *doing;
	void (*run)(struct file *file);
} operations[] = {
	{ 22, "writing", write_cached },
	{ 10, "writing directly", write_direct },
	{ 26, "reading", read_cached },
	{ 10, "reading directly", read_direct },
	{ 9, "writing the mapping of", write_mapped },
	{ 6, "truncating", truncate_somewhere },
	{ 6, "punching a hole into", punch_hole },
	{ 4, "zeroing a range of", zero_range },
	{ 4, "synchronising", synchronise },
	{ 1, "reading from the disk", read_whole_from_disk },
	{ 2, "renaming", close_and_rename },
};

static void operate(void)
{
	struct file *file = &files[below(file_count)];
	int pick = (int)below(100);
	int kind = 0;
	while (pick >= operations[kind].share)
		pick -= operations[kind++].share;
	doing = operations[kind].doing;
	operations[kind].run(file);
}

int main(int count, char **words)
{
	if (count != 6) {
		fprintf(stderr, "usage: exerciser FOLDER OPERATIONS SEED ASK_AT WORDS\n");
		return 2;
	}
	long operations_wanted = atol(words[2]), ask_at = atol(words[4]);
	random_state = strtoull(words[3], NULL, 10) * 2 + 1;
	buffer = aligned_alloc(sector, operation_bytes_max);
	for (int index = 0; index < file_count; index += 1) {
		struct file *file = &files[index];
		snprintf(file->path, sizeof file->path, "%s/%d-a", words[1], index);
		file->mirror = calloc(1, file_bytes_max);
		open_both(file);
	}
	for (operation_now = 1; operation_now <= operations_wanted; operation_now += 1) {
		operate();
		if (operation_now == ask_at) {
			printf("%s\n", words[5]);
			fflush(stdout);
		}
	}
	doing = "comparing";
	for (int index = 0; index < file_count; index += 1)
		read_whole_from_disk(&files[index]);
	return 0;
}
