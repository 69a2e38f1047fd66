/*
 * init.c
 *		Makes libbson survive in a server: memory that runs out must not abort().
 *
 * An abort() is a crash restart of the whole cluster.  Outside the driver
 * libbson only builds and reads documents, holds no locks, and may be left by
 * an ERROR; inside the driver (plinth_mongo_in_driver) the worker ends with
 * FATAL, which PostgreSQL treats as an ordinary exit.  A helper thread has
 * neither way out and keeps libbson's own behaviour.
 */
#include "postgres.h"

#include <pthread.h>

#include "mongo/bson_int.h"
#include "mongo/client_int.h"

bool plinth_mongo_in_driver = false;

static pthread_t main_thread;

static void *
memory_failed(Size size)
{
	if (!pthread_equal(pthread_self(), main_thread))
		return NULL;
	ereport(plinth_mongo_in_driver ? FATAL : ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
			 errdetail("Failed on request of size %zu in a MongoDB document.", size)));
	return NULL;
}

static void *
checked_malloc(size_t size)
{
	void *result = malloc(size);

	return result != NULL || size == 0 ? result : memory_failed(size);
}

static void *
checked_calloc(size_t members, size_t size)
{
	void *result = calloc(members, size);

	return result != NULL || size == 0 || members == 0 ? result : memory_failed(members * size);
}

static void *
checked_realloc(void *memory, size_t size)
{
	void *result = realloc(memory, size);

	return result != NULL || size == 0 ? result : memory_failed(size);
}

static void *
checked_aligned_alloc(size_t alignment, size_t size)
{
	void *result = NULL;

	return posix_memalign(&result, Max(alignment, sizeof(void *)), size) == 0 ? result
																			  : memory_failed(size);
}

/* Called in the postmaster: the allocators pass to every process by fork. */
void
plinth_mongo_init(void)
{
	static const bson_mem_vtable_t vtable = {.malloc = checked_malloc,
											 .calloc = checked_calloc,
											 .realloc = checked_realloc,
											 .free = free,
											 .aligned_alloc = checked_aligned_alloc};

	main_thread = pthread_self();
	bson_mem_set_vtable(&vtable);
}
