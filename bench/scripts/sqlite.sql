-- Rows made, indexed, joined, grouped, changed and deleted; nothing on disk.
CREATE TABLE item (id INTEGER PRIMARY KEY, kind INTEGER, price REAL, name TEXT);
INSERT INTO item
  WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
  SELECT i, (i * 7919) % 97, ((i * 104729) % 10007) / 100.0, printf('item-%06d', (i * 31337) % 30011) FROM n;
CREATE INDEX item_kind ON item (kind, price);
CREATE INDEX item_name ON item (name);
CREATE TABLE sale (item INTEGER, amount INTEGER);
INSERT INTO sale SELECT (id * 17) % 30000 + 1, id % 11 FROM item WHERE id % 2 = 0;
SELECT kind, count(*), round(sum(price * amount), 2) AS total
  FROM sale JOIN item ON item.id = sale.item GROUP BY kind ORDER BY total DESC LIMIT 5;
SELECT count(*), max(name) FROM item WHERE name LIKE 'item-01%' AND price BETWEEN 10 AND 60;
UPDATE item SET price = price * 1.25 WHERE kind IN (SELECT kind FROM item GROUP BY kind HAVING avg(price) < 50);
DELETE FROM item WHERE id % 3 = 0;
SELECT count(*), round(sum(price), 2), sum(length(name)) FROM item;
SELECT substr(name, 6, 2) AS prefix, count(DISTINCT kind) FROM item GROUP BY prefix ORDER BY prefix LIMIT 4;
PRAGMA integrity_check;
