import { runTool, type ToolOptions, type ToolResult } from './tool.ts'

/** The newest restic, and the one of Debian 12. */
export type ResticVersion = '0.19' | '0.14'

const names: Readonly<Record<ResticVersion, string>> = {
  '0.19': 'restic',
  '0.14': 'restic@bookworm',
}

/** Stock restic on one repository. */
export class Restic {
  readonly #version: ResticVersion
  readonly #env: NodeJS.ProcessEnv

  constructor(options: {
    readonly repository: string
    readonly password: string
    readonly version?: ResticVersion | undefined
    readonly env?: NodeJS.ProcessEnv | undefined
  }) {
    this.#version = options.version ?? '0.19'
    this.#env = {
      ...options.env,
      RESTIC_REPOSITORY: options.repository,
      RESTIC_PASSWORD: options.password,
    }
  }

  /** Runs `restic --no-cache ARGS`; throws unless it ends with 0 (or one of `codes`). */
  async run(args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
    const env = { ...this.#env, ...options.env }
    return runTool(names[this.#version], 'restic', ['--no-cache', ...args], {
      ...options,
      env,
    })
  }

  /** Runs it with `--json` and returns each line's value. */
  async json(args: readonly string[], options: ToolOptions = {}): Promise<unknown[]> {
    const { stdout } = await this.run([...args, '--json'], options)
    const lines = stdout.toString().split('\n')
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as unknown)
  }
}
