import assert from 'node:assert/strict'
import { test } from 'node:test'
import { adaptForeignKeys, splitTable, splitTop } from './ddl.ts'
import { parseFlavor } from './flavor.ts'

const create = [
  'CREATE TABLE `t(x` (',
  '  `id` int NOT NULL AUTO_INCREMENT,',
  "  `a,b` varchar(10) DEFAULT 'x)\\',(' COMMENT 'KEY `n` (''(',",
  '  `c` int GENERATED ALWAYS AS (if(`id` > 1, (2), 3)) VIRTUAL,',
  '  PRIMARY KEY (`id`),',
  '  UNIQUE KEY `u` (`a,b`),',
  '  KEY `k` (`c`,`a,b`(3)),',
  '  FULLTEXT KEY `f` (`a,b`),',
  '  CONSTRAINT `fk, (odd)` FOREIGN KEY (`c`) REFERENCES `p` (`id`) ON DELETE CASCADE,',
  '  CONSTRAINT `chk` CHECK (`c` > 0)',
  ") ENGINE=InnoDB AUTO_INCREMENT=7 COMMENT='a, (b)'",
].join('\n')

test('a table is taken apart into what its rows need, its other indexes, and its foreign keys', () => {
  const split = splitTable(create, true)
  assert.deepEqual(split.indexes, [
    ['ADD UNIQUE KEY `u` (`a,b`)', 'ADD KEY `k` (`c`,`a,b`(3))'],
    ['ADD FULLTEXT KEY `f` (`a,b`)'],
  ])
  assert.deepEqual(split.foreignKeys, [
    'ADD CONSTRAINT `fk, (odd)` FOREIGN KEY (`c`) REFERENCES `p` (`id`) ON DELETE CASCADE',
  ])
  assert.match(split.create, /PRIMARY KEY/)
  assert.match(split.create, /CONSTRAINT `chk` CHECK/)
  assert.match(split.create, /DEFAULT 'x\)\\',\('/)
  assert.doesNotMatch(split.create, /FOREIGN KEY|FULLTEXT|UNIQUE KEY/)
  assert.match(split.create, /\) ENGINE=InnoDB AUTO_INCREMENT=7 COMMENT='a, \(b\)'$/)
})

test('nothing but foreign keys is put off when that is not wanted', () => {
  const split = splitTable(create, false)
  assert.deepEqual(split.indexes, [])
  assert.equal(split.foreignKeys.length, 1)
  assert.match(split.create, /FULLTEXT/)
})

test('an index that a counter, a partition or the storage itself needs stays', () => {
  const counter =
    'CREATE TABLE `t` (\n  `a` int,\n  `id` int AUTO_INCREMENT,\n  PRIMARY KEY (`a`),\n  KEY `id` (`id`),\n  KEY `x` (`a`,`id`)\n) ENGINE=InnoDB'
  assert.deepEqual(splitTable(counter, true).indexes, [['ADD KEY `x` (`a`,`id`)']])
  const noPrimary =
    'CREATE TABLE `t` (\n  `a` int NOT NULL,\n  UNIQUE KEY `a` (`a`)\n) ENGINE=InnoDB'
  assert.deepEqual(splitTable(noPrimary, true).indexes, [])
})

test('what is quoted does not separate', () => {
  assert.deepEqual(splitTop("a;'b;''c';`d;`;(e;f)", ';'), ['a', "'b;''c'", '`d;`', '(e;f)'])
})

test('foreign keys of odd names are added by a copy on MySQL 5.6 alone', () => {
  const alter = (parent: string) =>
    `ALTER TABLE \`d\`.\`c\` ADD CONSTRAINT \`k\` FOREIGN KEY (\`p\`) REFERENCES \`${parent}\` (\`id\`)`
  const adapted = (parent: string, version: string) =>
    adaptForeignKeys(alter(parent), parseFlavor(version))
  assert.equal(adapted('p p', '5.6.51-log'), `${alter('p p')}, ALGORITHM = COPY`)
  assert.equal(adapted('tür', '5.6.51'), `${alter('tür')}, ALGORITHM = COPY`)
  assert.equal(adapted('p_1', '5.6.51'), alter('p_1'))
  assert.equal(adapted('p p', '9.7.0'), alter('p p'))
  assert.equal(adapted('p p', '10.11.2-MariaDB'), alter('p p'))
})
