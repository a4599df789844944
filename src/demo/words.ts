/** Everything that the story says, in one language. */
export type Words = {
  readonly yes: string
  readonly no: string
  readonly title: string
  readonly opening: (folder: string) => readonly [title: string, text: string]
  readonly findingMariadb: string
  readonly fetchMariadb: string
  readonly fetchedMariadb: string
  readonly noMariadb: string
  readonly starting: (name: string) => string
  readonly started: (name: string, version: string, seconds: string) => string
  readonly protecting: readonly [title: string, text: string]
  readonly vaultMade: string
  readonly makingVault: string
  readonly takingBase: (name: string, said: string) => string
  readonly protected: (name: string, seconds: string, lag: string) => string
  readonly selling: readonly [title: string, text: string]
  readonly sold: (counts: string) => string
  readonly goOn: string
  readonly mistake: readonly [title: string, text: string]
  readonly mistaken: (name: string, deleted: number, at: string) => string
  readonly crash: readonly [title: string, text: string]
  readonly crashed: (name: string, commits: number) => string
  readonly shippingTail: string
  readonly tailShipped: (name: string) => string
  readonly restoring: readonly [title: string, text: string]
  readonly restoringTo: (name: string, at: string) => string
  readonly latest: string
  readonly beforeMistake: string
  readonly restored: (name: string, what: string, seconds: string) => string
  readonly comparing: (name: string, what: string) => string
  readonly equal: (rows: string, transactions: string) => string
  readonly different: (name: string, what: string) => string
  readonly result: string
  readonly measured: (rpo: string, lost: number, rto: string) => string
  readonly look: string
  readonly keep: string
  readonly kept: string
  readonly allHeld: string
  readonly notHeld: string
  readonly withoutMariadb: string
  readonly lookLines: (vault: string, password: string) => readonly string[]
}

const english: Words = {
  yes: 'Yes',
  no: 'No',
  title: 'Redoubt: lose a database, get it back',
  opening: (folder) => [
    'A shop opens',
    `Real servers on this machine, in ${folder}. A separate process places orders,\nand writes down each commit that it saw return: the truth to compare with later.`,
  ],
  findingMariadb: 'Looking for MariaDB',
  fetchMariadb:
    "No MariaDB is installed. Fetch one from Debian's packages for this demo? (without root, nothing gets installed, 240 MB on disk)",
  fetchedMariadb: "MariaDB fetched from Debian's packages",
  noMariadb: 'No MariaDB on this machine: the story is played with PostgreSQL alone',
  starting: (name) => `Starting ${name}`,
  started: (name, version, seconds) => `${name} ${version} is running (${seconds} s)`,
  protecting: [
    'Protect it',
    'A base backup and the continuous log go into an encrypted vault. The log is durable\nthere within a second of every commit.',
  ],
  vaultMade: 'The vault is made: a restic repository and a log archive under one password',
  makingVault: 'Making the vault',
  takingBase: (name, said) => `${name}: ${said}`,
  protected: (name, seconds, lag) =>
    `${name} is protected: base backup in ${seconds} s, the newest restorable moment is ${lag} s old`,
  selling: [
    'Business as usual',
    'Orders come in; every one of them is in the vault a moment later.',
  ],
  sold: (counts) => `Committed so far: ${counts}`,
  goOn: 'Go on?',
  mistake: ['A mistake', 'Somebody forgets the WHERE: DELETE FROM orders. And the shop sells on.'],
  mistaken: (name, deleted, at) => `${name}: ${deleted} orders deleted just after ${at}`,
  crash: [
    'And a disaster',
    'kill -9 for the servers, and their data directories are gone. Only the vault is left.',
  ],
  crashed: (name, commits) => `${name} is gone, after ${commits} commits`,
  shippingTail: 'The archiver ships the last log that it saw',
  tailShipped: (name) => `${name}: the vault has all that the archiver saw`,
  restoring: [
    'Bring it back',
    'Twice, on new servers: to the moment before the mistake, and to the last commit.',
  ],
  restoringTo: (name, at) => `${name} to ${at}`,
  latest: 'the last commit',
  beforeMistake: 'before the mistake',
  restored: (name, what, seconds) => `${name}, ${what}: restored and answering after ${seconds} s`,
  comparing: (name, what) => `Comparing ${name}, ${what}, row by row`,
  equal: (rows, transactions) => `${rows} rows of ${transactions} transactions, all equal`,
  different: (name, what) => `${name}, ${what}, is not as it should be:`,
  result: 'Measured',
  measured: (rpo, lost, rto) =>
    `RPO ${rpo} (${lost} commits lost)   RTO ${rto} s (from the command to a server that answers)`,
  look: 'Where to look next',
  keep: 'Keep the restored servers and the vault for a look around?',
  kept: 'Everything stays as it is until you say so. Stop and remove it now?',
  allHeld: 'Every comparison held: each row is what the shop knew it had committed.',
  notHeld: 'NOT every comparison held: see above. Please report it.',
  withoutMariadb: 'MariaDB was not played: none is installed and none could be fetched.',
  lookLines: (vault, password) => [
    `export REDOUBT_VAULT_PASSWORD=${password}`,
    `./redoubt window --vault ${vault}`,
    `./redoubt restore --vault ${vault} --source postgresql --prove`,
    `./redoubt vault check --read-data --vault ${vault}`,
    'The guide: docs/guide/',
  ],
}

const chinese: Words = {
  yes: '是',
  no: '否',
  title: 'Redoubt：丢掉一个数据库，再把它找回来',
  opening: (folder) => [
    '小店开张',
    `本机上的真实数据库，放在 ${folder}。另有一个独立进程不断下单，\n把它亲眼看到返回的每一次提交都记下来：这就是事后比对的依据。`,
  ],
  findingMariadb: '查找 MariaDB',
  fetchMariadb:
    '本机没有安装 MariaDB。要为演示从 Debian 软件包取一个吗？（不需要 root，不做安装，占磁盘 240 MB）',
  fetchedMariadb: '已从 Debian 软件包取得 MariaDB',
  noMariadb: '本机没有 MariaDB：只用 PostgreSQL 演示',
  starting: (name) => `启动 ${name}`,
  started: (name, version, seconds) => `${name} ${version} 已运行（${seconds} 秒）`,
  protecting: [
    '开始保护',
    '一份基础备份和连续的日志写入加密的保险库。\n每次提交之后，日志在一秒之内就在库中持久保存。',
  ],
  vaultMade: '保险库已建好：一个 restic 仓库和一个日志归档，同一个密码',
  makingVault: '建立保险库',
  takingBase: (name, said) => `${name}：${said}`,
  protected: (name, seconds, lag) =>
    `${name} 已受保护：基础备份用时 ${seconds} 秒，最新可恢复时刻距现在 ${lag} 秒`,
  selling: ['照常营业', '订单不断进来；片刻之后，每一笔都已在保险库里。'],
  sold: (counts) => `已提交：${counts}`,
  goOn: '继续？',
  mistake: ['误操作', '有人忘了写 WHERE：DELETE FROM orders。而小店还在继续卖。'],
  mistaken: (name, deleted, at) => `${name}：${at} 之后不久，${deleted} 个订单被删除`,
  crash: ['祸不单行', '服务器被 kill -9，数据目录全部消失。只剩下保险库。'],
  crashed: (name, commits) => `${name} 已不复存在，此前共 ${commits} 次提交`,
  shippingTail: '归档进程把它看到的最后一段日志送入保险库',
  tailShipped: (name) => `${name}：归档进程看到的日志已全部入库`,
  restoring: ['恢复', '在新的服务器上恢复两次：恢复到误操作之前，以及恢复到最后一次提交。'],
  restoringTo: (name, at) => `${name} 恢复到 ${at}`,
  latest: '最后一次提交',
  beforeMistake: '误操作之前',
  restored: (name, what, seconds) => `${name}，${what}：${seconds} 秒后恢复完毕并可访问`,
  comparing: (name, what) => `逐行比对 ${name}（${what}）`,
  equal: (rows, transactions) => `${transactions} 个事务的 ${rows} 行，全部一致`,
  different: (name, what) => `${name}（${what}）与应有的内容不符：`,
  result: '实测结果',
  measured: (rpo, lost, rto) =>
    `RPO ${rpo}（丢失 ${lost} 次提交）   RTO ${rto} 秒（从发出命令到服务器可访问）`,
  look: '接下来可以看看',
  keep: '保留恢复出来的服务器和保险库，自己看一看？',
  kept: '一切保持原样。现在停止并清理吗？',
  allHeld: '所有比对全部成立：每一行都与小店已知提交的内容一致。',
  notHeld: '并非所有比对都成立：见上文。请向我们报告。',
  withoutMariadb: '没有演示 MariaDB：本机没有安装，也无法取得。',
  lookLines: (vault, password) => [
    `export REDOUBT_VAULT_PASSWORD=${password}`,
    `./redoubt window --vault ${vault}`,
    `./redoubt restore --vault ${vault} --source postgresql --prove`,
    `./redoubt vault check --read-data --vault ${vault}`,
    '使用指南：docs/guide/',
  ],
}

/** The reader's language by the usual variables; English when it is neither of the two. */
export function wordsFor(env: Readonly<Record<string, string | undefined>>): Words {
  const language = env['LC_ALL'] || env['LC_MESSAGES'] || env['LANG'] || ''
  return language.startsWith('zh') ? chinese : english
}
