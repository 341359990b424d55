import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { describeWorkload } from '../../src/trace/trace.ts';
import { wordsOfWorkload, workloadOfWords, workloadText } from '../../src/trace/workload.ts';

// Goal: the words of a workload give one key, whatever order its variables come in, and can be said again.
// Method: properties over words of any kind, and the keys of what was recorded before there were parts.

const words = fc.array(fc.string(), { maxLength: 4 });
const variables = fc.uniqueArray(fc.stringMatching(/^[A-Z_]{1,4}$/), { maxLength: 4 });

test('words give the same workload when they are said again', () => {
  fc.assert(
    fc.property(words, words, variables, (workload, workloadArgs, names) => {
      const workloadEnv = names.map((name, i) => `${name}=${i}=x`);
      const described = workloadOfWords({ workload, workloadArgs, workloadEnv });
      assert.deepEqual(workloadOfWords(wordsOfWorkload(described)), described);
      const reversed = workloadOfWords({
        ...{ workload, workloadArgs },
        workloadEnv: workloadEnv.toReversed(),
      });
      assert.equal(reversed.key, described.key);
    }),
  );
});

test('each part tells workloads apart, and words alone have the key they had', () => {
  const plain = workloadOfWords({ workload: ['/bin/app', 'serve'] });
  assert.equal(plain.key, describeWorkload(['/bin/app', 'serve'], []).key);
  const split = workloadOfWords({ workload: ['/bin/app'], workloadArgs: ['serve'] });
  const small = workloadOfWords({ workload: ['/bin/app', 'serve'], workloadEnv: ['MODE=small'] });
  assert.equal(new Set([plain.key, split.key, small.key]).size, 3);
  assert.equal(workloadText(small), 'MODE=small /bin/app serve');
});

test('of two variables of one name the later counts', () => {
  const twice = workloadOfWords({ workloadEnv: ['A=1', 'B=2', 'A=3'] });
  assert.deepEqual(twice.env, ['A=3', 'B=2']);
});

test('what no trace can hold is refused, and a value is not repeated', () => {
  for (const wrong of [
    { workload: Array.from({ length: 1025 }, () => 'word') },
    { workloadArgs: ['x'.repeat(32_769)] },
    { workloadEnv: ['no-value-secret'] },
    { workloadEnv: ['=secret'] },
  ]) {
    assert.throws(
      () => workloadOfWords(wrong),
      (error: Error & { code?: string }) =>
        error.code === 'ERR_WORKLOAD' && !error.message.includes('secret'),
    );
  }
});
