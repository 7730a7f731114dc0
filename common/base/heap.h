/* How the C library's heap treats large blocks. */
#ifndef NUNCHI_HEAP_H
#define NUNCHI_HEAP_H

/* For services through which values of up to a megabyte pass all the time: the heap keeps their
 * room rather than giving it back to the kernel and getting it back zeroed, which costs more than
 * everything else that is done with them. Before any thread is made. */
void heap_keep_large(void);

#endif
