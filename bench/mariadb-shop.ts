/** Statements that fill a database `shop` on MariaDB: a row of `wide` is about 450 bytes, of `narrow` 190. */
export function shopStatements(rows: number): string[] {
  return [
    'CREATE DATABASE shop',
    'USE shop',
    `CREATE TABLE shop.narrow (id int PRIMARY KEY, k int NOT NULL, c char(120) NOT NULL, pad char(60) NOT NULL, KEY (k))`,
    `INSERT INTO shop.narrow SELECT seq, CRC32(seq) % 1000000, RPAD(SHA2(seq, 256), 119, MD5(seq)), RPAD(MD5(seq + 1), 59, 'x') FROM seq_1_to_${rows}`,
    `CREATE TABLE shop.wide (id bigint PRIMARY KEY, a int, b bigint, price decimal(18,4), ratio double, at datetime(6), day date, code varchar(32), name varchar(120), state enum('new','paid','sent'), hash varbinary(32), note text, KEY (code), KEY (at))`,
    `INSERT INTO shop.wide SELECT seq, seq % 1000, seq * 7919, seq / 7, 1 / seq, '2026-01-01' + INTERVAL seq SECOND, '2026-01-01' + INTERVAL (seq % 900) DAY, MD5(seq), CONCAT('name ', SHA1(seq)), 1 + seq % 3, UNHEX(SHA2(seq, 256)), REPEAT(CONCAT('line ', seq, ' of text, '), 12) FROM seq_1_to_${rows}`,
  ]
}
