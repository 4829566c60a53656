/* Answers each datagram on port ARGV[1] with itself. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
  static char bytes[65536];
  struct sockaddr_in own = {.sin_family = AF_INET}, peer;
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  if (argc < 2) return 2;
  own.sin_port = htons(atoi(argv[1]));
  if (bind(s, (struct sockaddr *)&own, sizeof own)) return 1;
  for (;;) {
    socklen_t size = sizeof peer;
    long length = recvfrom(s, bytes, sizeof bytes, 0, (struct sockaddr *)&peer, &size);
    if (length >= 0) sendto(s, bytes, length, 0, (struct sockaddr *)&peer, size);
  }
}
