# A loop of arithmetic, tests, pattern matching and string handling; no other program is started.
count=0 sum=0 hits=0 trail=
step() {
  case $1 in
    *[05]) hits=$((hits + 1)) ;;
    1*) sum=$((sum ^ ($1 << 3))) ;;
    *) sum=$(((sum * 31 + $1) % 1000003)) ;;
  esac
}
while [ "$count" -lt 40000 ]; do
  count=$((count + 1))
  step "$count"
  trail=${trail#????????????}$count
  [ ${#trail} -gt 40 ] && trail=${trail%${trail#?????}}
done
echo "$sum $hits $trail"
