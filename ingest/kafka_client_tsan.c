/*
 * kafka_client_tsan.c: only under ThreadSanitizer: C11 threads on top of POSIX threads, for librdkafka.
 *
 * Distributions build librdkafka with the C11 threads of the C library. ThreadSanitizer sees POSIX threads only: a thread made by thrd_create() has no state
 * there and crashes at its first malloc(), and the locks of C11 order nothing. So these definitions stand before the C library's. It makes mtx_t, cnd_t
 * and thrd_t of the POSIX ones, which the casts rely on. A normal build has nothing of this.
 *
 * librdkafka itself is not instrumented: ThreadSanitizer does not see the reference counts that order its last use of a buffer before its free(). So
 * what it does inside malloc(), free(), memcpy() and the like is not judged; its locks are, and our own accesses are.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(UNDER_TSAN)

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

_Static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t) && sizeof(cnd_t) == sizeof(pthread_cond_t) && sizeof(thrd_t) == sizeof(pthread_t),
               "this C library makes C11 threads differently");

#define MUTEX(mutex) ((pthread_mutex_t *)(void *)(mutex))
#define CONDITION(condition) ((pthread_cond_t *)(void *)(condition))

/* kafka_client.c names it, so that the linker takes this file. */
extern const int kafka_client_tsan;
const int kafka_client_tsan = 1;

const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	/* and the life of its locks, which hangs on the same counts */
	return "called_from_lib:librdkafka\nrace:^mtx_\nrace:^cnd_\n";
}

struct start {
	thrd_start_t function;
	void *arg;
};

static int result(int error)
{
	return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : error == ENOMEM ? thrd_nomem : thrd_error;
}

static void *run(void *arg)
{
	struct start start = *(struct start *)arg;

	free(arg);
	return (void *)(intptr_t)start.function(start.arg);
}

int thrd_create(thrd_t *thread, thrd_start_t function, void *arg)
{
	struct start *start = malloc(sizeof(*start));
	int error;

	if (!start)
		return thrd_nomem;
	*start = (struct start){function, arg};
	error = pthread_create(thread, NULL, run, start);
	if (error)
		free(start);
	return result(error);
}

int thrd_join(thrd_t thread, int *ret_code)
{
	void *code = NULL;
	int error = pthread_join(thread, &code);

	if (!error && ret_code)
		*ret_code = (int)(intptr_t)code;
	return result(error);
}

int mtx_init(mtx_t *mutex, int type)
{
	pthread_mutexattr_t attributes;
	int error;

	pthread_mutexattr_init(&attributes);
	if (type & mtx_recursive)
		pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	error = pthread_mutex_init(MUTEX(mutex), &attributes);
	pthread_mutexattr_destroy(&attributes);
	return result(error);
}

void mtx_destroy(mtx_t *mutex)
{
	pthread_mutex_destroy(MUTEX(mutex));
}

int mtx_lock(mtx_t *mutex)
{
	return result(pthread_mutex_lock(MUTEX(mutex)));
}

int mtx_unlock(mtx_t *mutex)
{
	return result(pthread_mutex_unlock(MUTEX(mutex)));
}

int cnd_init(cnd_t *condition)
{
	return result(pthread_cond_init(CONDITION(condition), NULL));
}

void cnd_destroy(cnd_t *condition)
{
	pthread_cond_destroy(CONDITION(condition));
}

int cnd_signal(cnd_t *condition)
{
	return result(pthread_cond_signal(CONDITION(condition)));
}

int cnd_broadcast(cnd_t *condition)
{
	return result(pthread_cond_broadcast(CONDITION(condition)));
}

int cnd_wait(cnd_t *condition, mtx_t *mutex)
{
	return result(pthread_cond_wait(CONDITION(condition), MUTEX(mutex)));
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
	return result(pthread_cond_timedwait(CONDITION(condition), MUTEX(mutex), until));
}

#endif
