"""What pure Python does all day: objects, dictionaries, strings, integers large and small, floats, generators, exceptions."""


class Vector:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def turned(self):
        return Vector(-self.y, self.x)


def queens(size, row=0, columns=0, rising=0, falling=0):
    if row == size:
        return 1
    count = 0
    free = ~(columns | rising | falling) & ((1 << size) - 1)
    while free:
        bit = free & -free
        free -= bit
        count += queens(size, row + 1, columns | bit, (rising | bit) << 1, (falling | bit) >> 1)
    return count


def words(count):
    seed = 12345
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        yield "".join(chr(97 + (seed >> shift & 7)) for shift in range(0, 24, 6))


def frequencies(count):
    table = {}
    for word in words(count):
        table[word] = table.get(word, 0) + 1
    ordered = sorted(table.items(), key=lambda item: (-item[1], item[0]))
    return len(table), ", ".join(f"{word}={n}" for word, n in ordered[:5])


def walk(steps):
    position, direction = Vector(0.0, 0.0), Vector(1.0, 0.5)
    for step in range(steps):
        if step % 3 == 0:
            direction = direction.turned()
        position = position + direction
    return position.x, position.y


def digits(count):
    """Of pi, by Gibbons' spigot: integers that grow."""
    q, r, t, k, n, l = 1, 0, 1, 1, 3, 3
    found = []
    while len(found) < count:
        if 4 * q + r - t < n * t:
            found.append(str(n))
            q, r, n = 10 * q, 10 * (r - n * t), 10 * (3 * q + r) // t - 10 * n
        else:
            q, r, t, k, n, l = q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) // (t * l), l + 2
    return "".join(found)


def parsed(count):
    good = 0
    for i in range(count):
        try:
            good += int(f"{i}" if i % 4 else f"{i}x")
        except ValueError:
            good -= 1
    return good


for _ in range(3):
    print(queens(8), frequencies(15000), walk(50000), digits(350), parsed(25000))
