import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.election.LeaderKey;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.support.CloseableClient;
import io.etcd.jetcd.support.Observers;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;

/**
 * jetcd contends for a lock or an election: {@code Hold lock|election NAME TTL URL[,...]}. Talks to the judge of
 * tests/it/holders.rs on standard output and input until that says stop.
 */
public final class Hold {
  private static final long MOMENT_MS = 20;
  private static final long CALL_SECONDS = 2;

  private final BufferedReader judge = new BufferedReader(new InputStreamReader(System.in, UTF_8));
  private final Client client;
  private final String kind;
  private final String name;
  private final long ttl;

  private Hold(String[] args) {
    kind = args[0];
    name = args[1];
    ttl = Long.parseLong(args[2]);
    client = Client.builder().endpoints(args[3].split(",")).build();
  }

  public static void main(String[] args) throws Exception {
    Hold hold = new Hold(args);
    while (hold.session()) {
      Thread.sleep(MOMENT_MS);
    }
    // The client's threads are no daemons and would keep the process alive.
    System.exit(0);
  }

  /** What was taken, and how it is given back. */
  private record Held(ByteSequence key, Supplier<CompletableFuture<?>> give) {}

  /** Contends with one lease until a call fails; whether to go on with another one. */
  private boolean session() throws Exception {
    long lease = surely(() -> client.getLeaseClient().grant(ttl)).getID();
    try (CloseableClient kept = client.getLeaseClient().keepAlive(lease, Observers.observer(alive -> {}))) {
      while (true) {
        // The server answers when no other session holds.
        Held held = (kind.equals("lock") ? lock(lease) : campaign(lease)).get();
        boolean goesOn = hold(held.key);
        held.give.get().get(CALL_SECONDS, TimeUnit.SECONDS);
        if (!goesOn) {
          return false;
        }
      }
    } catch (ExecutionException | TimeoutException away) {
      // The call may still take effect: on its lease, which is not used again.
      return true;
    } finally {
      surely(() -> client.getLeaseClient().revoke(lease).handle((done, gone) -> retryIfAway(gone)));
    }
  }

  private CompletableFuture<Held> lock(long lease) {
    return client.getLockClient().lock(bytes(name), lease)
        .thenApply(locked -> new Held(locked.getKey(), () -> client.getLockClient().unlock(locked.getKey())));
  }

  private CompletableFuture<Held> campaign(long lease) {
    ByteSequence own = bytes(Long.toString(ProcessHandle.current().pid()));
    return client.getElectionClient().campaign(bytes("election/" + name), lease, own).thenApply(won -> {
      LeaderKey leader = won.getLeader();
      return new Held(leader.getKey(), () -> client.getElectionClient().resign(leader));
    });
  }

  /** A number is read and written one higher, on condition that our key is still there. */
  private boolean hold(ByteSequence key) throws Exception {
    GetResponse own = surely(() -> client.getKVClient().get(key));
    if (own.getKvs().isEmpty()) {
      return tell("missed");
    }
    long revision = own.getKvs().get(0).getCreateRevision();
    if (!tell("enter " + revision)) {
      return false;
    }
    ByteSequence counter = bytes("count/" + name);
    GetResponse read = surely(() -> client.getKVClient().get(counter));
    long count = 1;
    if (!read.getKvs().isEmpty()) {
      count += Long.parseLong(read.getKvs().get(0).getValue().toString(UTF_8));
    }
    ByteSequence next = bytes(Long.toString(count));
    Cmp ours = new Cmp(key, Cmp.Op.EQUAL, CmpTarget.createRevision(revision));
    boolean written = surely(() -> client.getKVClient().txn().If(ours)
        .Then(Op.put(counter, next, PutOption.DEFAULT)).commit()).isSucceeded();
    return tell(written ? "leave " + count : "lost");
  }

  /** Asks until there is an answer: the server may be away for a moment. */
  private static <T> T surely(Supplier<CompletableFuture<T>> ask) throws InterruptedException {
    while (true) {
      try {
        return ask.get().get(CALL_SECONDS, TimeUnit.SECONDS);
      } catch (ExecutionException | TimeoutException away) {
        Thread.sleep(MOMENT_MS);
      }
    }
  }

  /** A lease that is not there needs no end. */
  private static Void retryIfAway(Throwable gone) {
    if (gone == null || String.valueOf(gone.getMessage()).contains("lease not found")) {
      return null;
    }
    throw new CompletionException(gone);
  }

  /** Says a line to the judge; whether to go on is the judge's answer. */
  private boolean tell(String line) throws IOException {
    System.out.println(line);
    String answer = judge.readLine();
    if (answer == null) {
      throw new IOException("the judge is gone");
    }
    return answer.trim().equals("go");
  }

  private static ByteSequence bytes(String text) {
    return ByteSequence.from(text, UTF_8);
  }
}
