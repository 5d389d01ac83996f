import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.ClientBuilder;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.watch.WatchResponse;
import java.io.File;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** jetcd over TLS with a certificate and a user: {@code Secure URL CA CERT KEY USER PASSWORD}. */
public final class Secure {
  private static final long CALL_SECONDS = 30;

  private Secure() {}

  public static void main(String[] args) throws Exception {
    try (Client client = connect(args, args[5])) {
      BlockingQueue<WatchResponse> seen = new LinkedBlockingQueue<>();
      try (Watch.Watcher watcher = client.getWatchClient().watch(bytes("java/a"), Watch.listener(seen::add))) {
        call(client.getKVClient().put(bytes("java/a"), bytes("1")));
        require(value(client, "java/a").equals("1"), "the value was not read back");
        WatchResponse first = seen.poll(CALL_SECONDS, TimeUnit.SECONDS);
        require(first != null && first.getEvents().get(0).getKeyValue().getValue().equals(bytes("1")), "no event");
      }
      long lease = call(client.getLeaseClient().grant(60)).getID();
      PutOption leased = PutOption.builder().withLeaseId(lease).build();
      call(client.getKVClient().put(bytes("java/b"), bytes("x".repeat(100_000)), leased));
      require(value(client, "java/b").length() == 100_000, "a large value was not read back");
      call(client.getLeaseClient().revoke(lease));
      require(call(client.getKVClient().get(bytes("java/b"))).getCount() == 0, "the key outlives its lease");
    }
    try (Client stranger = connect(args, args[5] + "x")) {
      call(stranger.getKVClient().get(bytes("java/a")));
      throw new AssertionError("a wrong password was taken");
    } catch (ExecutionException refused) {
      require(String.valueOf(refused.getMessage()).contains("UNAUTHENTICATED"), refused.getMessage());
    }
    System.out.println("put, get, watch, lease over TLS");
    System.exit(0);
  }

  private static Client connect(String[] args, String password) throws Exception {
    ClientBuilder builder = Client.builder().endpoints(args[0]).user(bytes(args[4])).password(bytes(password));
    return builder.sslContext(context -> {
      context.trustManager(new File(args[1]));
      context.keyManager(new File(args[2]), new File(args[3]));
    }).build();
  }

  private static String value(Client client, String key) throws Exception {
    return call(client.getKVClient().get(bytes(key))).getKvs().get(0).getValue().toString(UTF_8);
  }

  private static <T> T call(CompletableFuture<T> pending) throws Exception {
    return pending.get(CALL_SECONDS, TimeUnit.SECONDS);
  }

  private static void require(boolean holds, String why) {
    if (!holds) {
      throw new AssertionError(why);
    }
  }

  private static ByteSequence bytes(String text) {
    return ByteSequence.from(text, UTF_8);
  }
}
