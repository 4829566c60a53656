/*
 * What a file system does, as lines of text: run natively and on a shared folder, the outputs are to be the same.
 * share-cases DIR   makes and removes files below DIR. Lines: NUMBER CALL: errno name or what was found.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int number;

static void say(const char *what, long result) {
  printf("%d %s: ", ++number, what);
  if (result < 0) printf("%s\n", strerrorname_np(errno));
  else printf("%ld\n", result);
}

#define T(call) do { errno = 0; long r_ = (long)(call); say(#call, r_); } while (0)
/* For calls whose result is a descriptor. */
#define FD(var, call) do { errno = 0; var = (call); say(#call, var < 0 ? -1 : 0); } while (0)

static void shape(const char *path) {
  struct stat st;
  printf("%d shape %s: ", ++number, path);
  if (lstat(path, &st) < 0) { printf("%s\n", strerrorname_np(errno)); return; }
  printf("%o links %ld", st.st_mode, S_ISDIR(st.st_mode) ? 0L : (long)st.st_nlink);
  if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) printf(" size %ld", (long)st.st_size);
  printf(" uid %d gid %d\n", st.st_uid, st.st_gid);
}

static void text(const char *path) {
  char buffer[256];
  int fd = open(path, O_RDONLY);
  long n = fd < 0 ? -1 : read(fd, buffer, sizeof buffer - 1);
  if (n < 0) { say(path, -1); return; }
  buffer[n] = 0;
  printf("%d text %s: '%s'\n", ++number, path, buffer);
  close(fd);
}

static void files(void) {
  int fd, fd2;
  char buffer[64];
  puts("# files");
  FD(fd, open("a", O_CREAT | O_EXCL | O_RDWR, 0640));
  T(open("a", O_CREAT | O_EXCL | O_RDWR, 0640));
  T(write(fd, "hello world", 11));
  T(pwrite(fd, "W", 1, 6));
  T(lseek(fd, 0, SEEK_END));
  T(pread(fd, buffer, 64, 6));
  T(pread(fd, buffer, 64, 11));
  T(pread(fd, buffer, 64, 5000));
  shape("a");
  T(ftruncate(fd, 5)); shape("a"); text("a");
  T(ftruncate(fd, 20000)); shape("a");
  T(truncate("a", 3)); shape("a"); text("a");
  T(ftruncate(fd, -1));
  T(fsync(fd)); T(fdatasync(fd));
  T(close(fd)); T(write(fd, "x", 1));
  FD(fd, open("a", O_WRONLY | O_APPEND));
  T(write(fd, "123", 3)); T(pwrite(fd, "456", 3, 0)); T(close(fd)); text("a");
  FD(fd, open("a", O_WRONLY | O_TRUNC)); shape("a"); T(read(fd, buffer, 1)); T(close(fd));
  FD(fd, open("a", O_RDONLY)); T(write(fd, "x", 1)); T(close(fd));
  FD(fd, open("absent", O_RDONLY)); FD(fd, open("absent/x", O_CREAT | O_RDWR, 0600));
  FD(fd, open("a/x", O_CREAT | O_RDWR, 0600)); FD(fd, open("a", O_RDONLY | O_DIRECTORY));
  FD(fd, open(".", O_RDWR)); FD(fd, open("a", O_CREAT | O_DIRECTORY | O_RDONLY, 0600));
  umask(027); FD(fd, open("masked", O_CREAT | O_RDWR, 0666)); close(fd); shape("masked");
  T(mkdir("maskeddir", 0777)); shape("maskeddir"); umask(0);
  FD(fd, open("wide", O_CREAT | O_RDWR, 07777)); close(fd); shape("wide"); umask(022);
  FD(fd, open("ro", O_CREAT | O_EXCL | O_RDWR, 0444)); T(write(fd, "made", 4)); T(close(fd)); text("ro"); shape("ro");
  T(unlink("masked")); T(rmdir("maskeddir")); T(unlink("wide")); T(unlink("ro"));
  /* without a name */
  FD(fd, open("gone", O_CREAT | O_RDWR, 0600)); T(write(fd, "abc", 3)); T(unlink("gone"));
  struct stat st;
  T(fstat(fd, &st)); printf("nlink %ld size %ld\n", (long)st.st_nlink, (long)st.st_size);
  T(write(fd, "def", 3)); T(pread(fd, buffer, 64, 0)); T(ftruncate(fd, 2)); T(fchmod(fd, 0644));
  T(fstat(fd, &st)); printf("mode %o size %ld\n", st.st_mode, (long)st.st_size); T(close(fd));
  shape("gone");
  /* two descriptors of one file */
  FD(fd, open("two", O_CREAT | O_RDWR, 0600)); FD(fd2, open("two", O_RDWR));
  T(write(fd, "first", 5)); T(pread(fd2, buffer, 64, 0)); T(pwrite(fd2, "SECOND", 6, 5)); T(pread(fd, buffer, 64, 0));
  T(ftruncate(fd2, 1)); T(fstat(fd, &st)); printf("size %ld\n", (long)st.st_size);
  close(fd); close(fd2); T(unlink("two"));
  /* far and empty */
  FD(fd, open("sparse", O_CREAT | O_RDWR, 0600)); T(pwrite(fd, "end", 3, 5L << 30)); shape("sparse");
  T(fstat(fd, &st)); printf("few blocks %d\n", st.st_blocks < 1000); T(pread(fd, buffer, 10, 1L << 30)); printf("zero %d\n", buffer[0] == 0 && buffer[9] == 0);
  T(pread(fd, buffer, 10, (5L << 30) - 2)); close(fd); T(unlink("sparse"));
  struct iovec parts[3] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
  FD(fd, open("v", O_CREAT | O_RDWR, 0600)); T(writev(fd, parts, 3)); T(close(fd)); text("v"); T(unlink("v"));
  FD(fd, open("big", O_CREAT | O_RDWR, 0600));
  static char block[1 << 16]; long total = 0;
  for (int i = 0; i < 64; i++) { memset(block, i, sizeof block); total += write(fd, block, sizeof block - 7); }
  printf("wrote %ld\n", total); unsigned sum = 0; lseek(fd, 0, SEEK_SET);
  for (long n; (n = read(fd, block, 12345)) > 0;) for (long i = 0; i < n; i++) sum = sum * 31 + (unsigned char)block[i];
  printf("sum %u\n", sum); close(fd); T(unlink("big"));
  T(unlink("a")); T(unlink("a")); T(unlink("a/b"));
}

static void directories(void) {
  puts("# directories");
  int fd;
  T(mkdir("d", 0750)); T(mkdir("d", 0750)); shape("d"); T(mkdir("d/e", 0777)); T(mkdir("x/y", 0777));
  T(rmdir("d")); T(unlink("d")); FD(fd, open("d/f", O_CREAT | O_WRONLY, 0600)); close(fd); T(rmdir("d/f"));
  T(rmdir("d/e")); T(rmdir("d/e")); T(rmdir("d/.")); T(unlink("d/f")); T(rmdir("d"));
  char name[300]; memset(name, 'n', 299); name[255] = 0; T(mkdir(name, 0700)); T(rmdir(name));
  name[255] = 'n'; name[256] = 0; T(mkdir(name, 0700));
  T(mkdir("many", 0755)); char path[64];
  for (int i = 0; i < 1500; i++) { sprintf(path, "many/%d", i); close(open(path, O_CREAT | O_WRONLY, 0600)); }
  DIR *dir = opendir("many"); int count = 0, dots = 0, odd = 0; long sum = 0;
  for (struct dirent *e; (e = readdir(dir));) {
    if (e->d_name[0] == '.') { dots++; continue; }
    struct stat st; sprintf(path, "many/%s", e->d_name); if (lstat(path, &st) || st.st_ino != e->d_ino || e->d_type != DT_REG) odd++;
    count++; sum += atoi(e->d_name);
  }
  printf("listed %d dots %d sum %ld odd %d\n", count, dots, sum, odd);
  rewinddir(dir); count = 0; while (readdir(dir)) count++; printf("again %d\n", count);
  /* removed while it is read: nothing that stays is left out */
  rewinddir(dir); count = 0;
  for (struct dirent *e; (e = readdir(dir));) { if (e->d_name[0] == '.') continue; sprintf(path, "many/%s", e->d_name); count += unlink(path) == 0; }
  closedir(dir); printf("removed %d\n", count); T(rmdir("many"));
  T(mkdir("g", 0755)); T(chown("g", 0, 77)); T(chmod("g", 02775)); FD(fd, open("g/f", O_CREAT | O_WRONLY, 0600)); close(fd); shape("g/f");
  T(mkdir("g/d", 0755)); shape("g/d"); unlink("g/f"); rmdir("g/d"); rmdir("g");
  /* in a directory that is no more */
  T(mkdir("cwd", 0755)); T(chdir("cwd")); T(rmdir("../cwd")); FD(fd, open("x", O_CREAT | O_WRONLY, 0600)); T(chdir(".."));
}

static void names(void) {
  int fd;
  puts("# names");
  FD(fd, open("a", O_CREAT | O_WRONLY, 0644)); T(write(fd, "A", 1)); close(fd);
  FD(fd, open("b", O_CREAT | O_WRONLY, 0644)); T(write(fd, "B", 1)); close(fd);
  T(mkdir("d", 0755)); T(mkdir("e", 0755)); T(mkdir("e/in", 0755));
  T(rename("a", "c")); shape("a"); text("c"); T(rename("c", "b")); text("b"); T(rename("absent", "x"));
  T(rename("b", "d")); T(rename("d", "b")); T(rename("d", "e")); T(rename("e", "d")); shape("d/in"); T(rename("d", "d/in/x"));
  T(rename("b", "b")); T(rename("b", "d/in/b")); text("d/in/b"); T(rename("d/in/b", "./b")); T(rename("d/in", ".")); T(rename("d/in", ".."));
  FD(fd, open("n", O_CREAT | O_WRONLY, 0644)); close(fd);
  T(renameat2(AT_FDCWD, "b", AT_FDCWD, "n", RENAME_NOREPLACE)); T(renameat2(AT_FDCWD, "b", AT_FDCWD, "m", RENAME_NOREPLACE));
  T(renameat2(AT_FDCWD, "d", AT_FDCWD, "n", RENAME_NOREPLACE)); T(renameat2(AT_FDCWD, "d", AT_FDCWD, "dd", RENAME_NOREPLACE)); shape("dd/in");
  T(rename("m", "b")); T(rename("dd", "d")); T(unlink("n"));
  T(link("b", "hard")); shape("b"); shape("hard"); T(link("b", "hard")); T(link("d", "harddir")); T(link("absent", "x"));
  T(unlink("b")); shape("hard"); text("hard"); T(rename("hard", "b"));
  T(symlink("b", "soft")); shape("soft"); text("soft"); char target[100]; memset(target, 0, 100);
  T(readlink("soft", target, 99)); puts(target); T(readlink("b", target, 99)); T(symlink("b", "soft")); T(link("soft", "soft2")); shape("soft2");
  FD(fd, open("soft", O_RDONLY | O_NOFOLLOW)); T(symlink("nowhere", "dangling")); FD(fd, open("dangling", O_RDONLY)); FD(fd, open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0644));
  FD(fd, open("dangling", O_CREAT | O_WRONLY, 0644)); close(fd); shape("nowhere");
  T(symlink("loop", "loop")); FD(fd, open("loop", O_RDONLY)); T(lchown("soft", 3, 4)); shape("soft");
  T(unlink("soft")); T(unlink("soft2")); T(unlink("dangling")); T(unlink("nowhere")); T(unlink("loop")); T(unlink("b")); T(rmdir("d/in")); T(rmdir("d"));
  /* a storm: two names change places */
  for (int i = 0; i < 2; i++) { char name[2] = {'p' + i, 0}; fd = open(name, O_CREAT | O_WRONLY, 0644); write(fd, name, 1); close(fd); }
  int bad = 0;
  for (int i = 0; i < 300; i++) bad += rename("p", "t") || rename("q", "p") || rename("t", "q");
  printf("storm %d\n", bad); text("p"); text("q"); unlink("p"); unlink("q");
}

static void attributes(void) {
  int fd; struct stat st;
  puts("# attributes");
  FD(fd, open("a", O_CREAT | O_RDWR, 0644));
  T(chmod("a", 04711)); shape("a"); T(fchmod(fd, 0600)); shape("a"); T(chown("a", 12, 34)); shape("a"); T(chown("a", -1, 56)); shape("a");
  T(chmod("a", 06755)); T(chown("a", 1, 1)); shape("a"); T(chmod("absent", 0644));
  T(chmod("a", 04755)); T(write(fd, "x", 1)); shape("a");
  struct timespec times[2] = {{1000000000, 500000000}, {1234567890, 250000000}};
  T(utimensat(AT_FDCWD, "a", times, 0)); stat("a", &st);
  printf("times %ld.%09ld %ld.%09ld\n", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  times[0].tv_nsec = UTIME_OMIT; times[1].tv_sec = 5; times[1].tv_nsec = 0; T(utimensat(AT_FDCWD, "a", times, 0)); stat("a", &st);
  printf("times %ld %ld\n", st.st_atim.tv_sec, st.st_mtim.tv_sec);
  times[1].tv_sec = -100; T(utimensat(AT_FDCWD, "a", times, 0)); stat("a", &st); printf("before 1970 %ld\n", st.st_mtim.tv_sec);
  times[1].tv_nsec = UTIME_NOW; T(futimens(fd, times)); stat("a", &st); printf("now %d\n", st.st_mtim.tv_sec > 1700000000);
  T(symlink("a", "s")); times[0].tv_sec = 7; times[0].tv_nsec = 0; times[1] = times[0]; T(utimensat(AT_FDCWD, "s", times, AT_SYMLINK_NOFOLLOW)); lstat("s", &st); printf("link %ld\n", st.st_mtim.tv_sec);
  T(unlink("s")); close(fd); T(unlink("a"));
  /* what others may do */
  FD(fd, open("mine", O_CREAT | O_WRONLY, 0600)); close(fd); T(mkdir("closed", 0700)); T(mkdir("open", 01777));
  fflush(stdout);
  if (fork() == 0) {
    setgid(1000); setuid(1000);
    FD(fd, open("mine", O_RDONLY)); FD(fd, open("closed/x", O_CREAT | O_WRONLY, 0600)); T(unlink("mine")); T(chmod("mine", 0777)); T(access("mine", R_OK));
    FD(fd, open("open/theirs", O_CREAT | O_WRONLY, 0644)); close(fd); shape("open/theirs"); T(mkdir("open/d", 0755)); shape("open/d"); T(chown("open/theirs", 0, 0)); T(chmod("open/theirs", 0600));
    fflush(stdout); _exit(0);
  }
  wait(NULL); number += 10;
  FD(fd, open("open/root", O_CREAT | O_WRONLY, 0644)); close(fd); fflush(stdout);
  if (fork() == 0) { setgid(1000); setuid(1000); T(unlink("open/root")); T(unlink("open/theirs")); T(rmdir("open/d")); fflush(stdout); _exit(0); }
  wait(NULL); number += 3;
  T(unlink("open/root")); T(rmdir("open")); T(rmdir("closed")); T(unlink("mine"));
  struct statvfs space; T(statvfs(".", &space)); printf("names %ld\n", space.f_namemax);
}

static void memory(void) {
  int fd;
  puts("# memory and locks");
  FD(fd, open("m", O_CREAT | O_RDWR, 0600)); T(ftruncate(fd, 10000));
  char *shared = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  printf("mapped %d\n", shared != MAP_FAILED); strcpy(shared + 5000, "by memory"); T(msync(shared, 10000, MS_SYNC));
  char buffer[20] = {0}; T(pread(fd, buffer, 9, 5000)); puts(buffer); T(pwrite(fd, "by write", 9, 0)); puts(shared); munmap(shared, 10000);
  char *private = mmap(NULL, 10000, PROT_READ, MAP_PRIVATE, fd, 0); close(fd); printf("after close %s\n", private + 5000); munmap(private, 10000);
  FD(fd, open("m", O_RDWR)); struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10}; T(fcntl(fd, F_SETLK, &lock)); fflush(stdout);
  if (fork() == 0) { int other = open("m", O_RDWR); T(fcntl(other, F_SETLK, &lock)); lock.l_start = 10; T(fcntl(other, F_SETLK, &lock)); T(flock(other, LOCK_EX | LOCK_NB)); fflush(stdout); _exit(0); }
  wait(NULL); number += 3; close(fd);
  FD(fd, open("m", O_RDWR)); T(flock(fd, LOCK_EX)); fflush(stdout);
  if (fork() == 0) { int other = open("m", O_RDWR); T(flock(other, LOCK_EX | LOCK_NB)); fflush(stdout); _exit(0); }
  wait(NULL); number += 1; close(fd);
  int from, to; FD(from, open("m", O_RDONLY)); FD(to, open("copy", O_CREAT | O_RDWR, 0600)); T(copy_file_range(from, NULL, to, NULL, 20000, 0)); shape("copy"); close(from); close(to);
  T(unlink("copy")); T(unlink("m"));
  FD(fd, open("direct", O_CREAT | O_RDWR | O_DIRECT, 0600)); char *aligned = aligned_alloc(4096, 8192); memset(aligned, 'd', 8192);
  T(pwrite(fd, aligned, 8192, 0)); memset(aligned, 0, 8192); T(pread(fd, aligned, 8192, 0)); printf("direct %c\n", aligned[8191]); close(fd); T(unlink("direct"));
}

int main(int argc, char **argv) {
  if (argc < 2 || chdir(argv[1]) < 0) { perror("chdir"); return 1; }
  umask(022);
  files(); directories(); names(); attributes(); memory();
  return 0;
}
