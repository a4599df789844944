import type { Verb } from './verb.ts'

export const demoVerb: Verb = {
  name: 'demo',
  summary:
    'the whole story on real servers on this machine: protect, a mistake, a lost server, recovery',
  options: [
    {
      flags: '--once',
      help: 'run through without questions; exit 0 only if every comparison held',
    },
  ],
  examples: [
    ['redoubt demo', 'step by step'],
    ['redoubt demo --once', 'in one go, for scripts'],
  ],
  async run(input, context) {
    const { runDemo } = await import('#demo')
    return runDemo({ once: input.flag('once'), signal: context.signal, env: context.env })
  },
}
