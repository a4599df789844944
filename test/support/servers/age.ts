import { runTool } from './tool.ts'

const age = 'age@bookworm'

/** A fresh identity of stock `age-keygen`. */
export async function ageKeygen(): Promise<{ identity: string; recipient: string }> {
  const { stdout } = await runTool(age, 'age-keygen', [])
  const text = stdout.toString()
  const identity = /^AGE-SECRET-KEY-1\w+$/m.exec(text)?.[0]
  const recipient = /age1\w+/.exec(text)?.[0]
  if (!identity || !recipient) throw new Error(`age-keygen said: ${text}`)
  return { identity, recipient }
}

/** Stock `age -r`. */
export async function ageEncrypt(plain: Uint8Array, recipient: string): Promise<Buffer> {
  const { stdout } = await runTool(age, 'age', ['-r', recipient], { input: plain })
  return stdout
}

/** Stock `age -d -i`. */
export async function ageDecrypt(sealed: Uint8Array, identityFile: string): Promise<Buffer> {
  const { stdout } = await runTool(age, 'age', ['-d', '-i', identityFile], { input: sealed })
  return stdout
}

/** Stock `zstd -d`. */
export async function zstdDecompress(packed: Uint8Array): Promise<Buffer> {
  const { stdout } = await runTool('zstd@bookworm', 'zstd', ['-d', '-c'], { input: packed })
  return stdout
}
