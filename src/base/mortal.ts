import { existsSync } from 'node:fs'

const setpriv = '/usr/bin/setpriv'

/**
 * A command line for a child that ends when this process does, even by SIGKILL: the kernel sends it the same then. On
 * systems without `setpriv` the command stays as it is. `more` are further options of `setpriv`, such as another user.
 * https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
 */
export function mortal(
  command: readonly string[],
  more: readonly string[] = [],
): [program: string, args: string[]] {
  const [program = '', ...args] = command
  if (!existsSync(setpriv)) return [program, args]
  return [setpriv, [...more, '--pdeathsig', 'KILL', program, ...args]]
}
