/*
 * probe.c: is there a GPU for the tests of `make check-gpu`? Prints its name and exits 0, or the reason why not and exits 1.
 */
#include <stdio.h>

#include "trainer/learn/backend.h"

extern const struct backend_ops backend_cuda;

int main(void)
{
	char reason[256] = "";
	int rc = backend_cuda.probe(reason, sizeof reason);
	if (rc < 0)
		puts(reason);
	return rc < 0;
}
